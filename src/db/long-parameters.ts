import type { BindConfig, Connection } from "pg";

/** From this length on, to copy a value costs more than to send it as a piece of its own. */
const longBytes = 16 * 1024;

/**
 * Lets a connection hand long bytes to the socket as they are: `pg` copies those of a statement's parameters into one message, and all of them again
 * each time that the message outgrows its memory. Who gave such bytes must leave them alone until the statement has ended.
 * @see PostgreSQL, "Message Formats", Bind
 */
export function sendLongParametersUncopied(connection: Connection): void {
  const bind = connection.bind.bind(connection);
  connection.bind = (config, more) => {
    if (!config?.values?.some(isLong)) {
      bind(config, more);
      return;
    }
    // Another one since the connection was made, where it is encrypted.
    const { stream } = connection;
    if (!stream.writable) return;
    // Node gives the system all pieces in one call.
    stream.cork();
    for (const piece of bindMessage(config)) stream.write(piece);
    stream.uncork();
  };
}

function isLong(value: unknown): boolean {
  return Buffer.isBuffer(value) && value.length >= longBytes;
}

function bindMessage({ portal = "", statement = "", values = [], binary, valueMapper }: BindConfig): readonly Buffer[] {
  // As `pg` has it: bytes are binary, all else is text, nothing is null.
  const fields = values.map((value, index) => {
    const mapped: Buffer | string | null | undefined = valueMapper ? valueMapper(value, index) : value;
    return typeof mapped === "string" ? { bytes: Buffer.from(mapped), format: 0 } : { bytes: mapped, format: 1 };
  });
  const pieces = [
    Buffer.from(`${portal}\0${statement}\0`),
    int16s(fields.length, ...fields.map(({ format }) => format), fields.length),
    ...fields.flatMap(({ bytes }) => (bytes ? [int32(bytes.length), bytes] : [int32(-1)])),
    int16s(1, binary ? 1 : 0),
  ];
  const length = pieces.reduce((sum, piece) => sum + piece.length, 4);
  return [Buffer.from("B"), int32(length), ...pieces];
}

function int32(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeInt32BE(value);
  return bytes;
}

function int16s(...values: readonly number[]): Buffer {
  const bytes = Buffer.allocUnsafe(2 * values.length);
  for (const [index, value] of values.entries()) bytes.writeUInt16BE(value, 2 * index);
  return bytes;
}
