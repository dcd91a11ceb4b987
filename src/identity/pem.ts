const BLOCK = /-----BEGIN ([A-Z0-9 ]+)-----\r?\n([A-Za-z0-9+/=\s]*?)\r?\n?-----END \1-----/g;

export interface PemBlock {
  readonly label: string;
  readonly der: Buffer;
}

/**
 * Every block of a PEM text, in order. Text between blocks is a comment; half a block, or one with other characters than base64, throws an
 * Error that says which (OpenSSL stops at such a block and takes what came before it, in silence).
 */
export function pemBlocks(text: string): PemBlock[] {
  const blocks = [...text.matchAll(BLOCK)].map(([, label, base64]) => ({ label: label!, der: Buffer.from(base64!, "base64") }));
  if (text.replaceAll(BLOCK, "").includes("-----")) throw new Error(`block ${blocks.length + 1} is damaged`);
  return blocks;
}

export function toPem(label: string, der: Uint8Array): string {
  const base64 = Buffer.from(der)
    .toString("base64")
    .replaceAll(/.{64}(?=.)/g, "$&\n");
  return `-----BEGIN ${label}-----\n${base64}\n-----END ${label}-----\n`;
}
