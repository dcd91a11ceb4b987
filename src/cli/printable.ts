/**
 * Text for a terminal, on one line: control characters, those that turn the direction of writing, and line separators are shown as escapes. Labels, annotations and secrets are what
 * somebody else wrote, and a terminal obeys what it is sent. `--field`, `-o json` and `-o yaml` give the text itself.
 */
export function printable(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, escaped);
}

function escaped(character: string): string {
  const short = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[character];
  return short ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
