/** Told whenever a lease's next action moves: the schedule's hint. The row decides; a hint that is lost costs the sweep's interval. */
export interface Due {
  /** @param at Unix milliseconds, database clock. */
  scheduled(id: string, at: number): void;
  /** The row's time changed: look it up. */
  changed(id: string): Promise<void>;
  /** Nothing is due for now (but a last look, far ahead): the hint may go. */
  ended(id: string): void;
}
