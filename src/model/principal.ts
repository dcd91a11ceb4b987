/** Who calls: a SPIFFE id that was verified against its own trust domain's bundle, once per connection. */
export interface Principal {
  /** `spiffe://acme.test/ns/payments/sa/app`, canonical. */
  readonly id: string;
  /** `acme.test` */
  readonly trustDomain: string;
  /** Path segments of the id: `["ns", "payments", "sa", "app"]`. */
  readonly segments: readonly string[];
}
