import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, open, unlink } from "node:fs/promises";
import { join } from "node:path";
import type { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip, createZstdDecompress } from "node:zlib";
import type { Limits } from "../config/index.ts";
import { messageOf, StowageError, temporaryFailure } from "../errors/index.ts";
import { type Call, type Progress, throwIfAborted } from "../runtime/index.ts";
import { isErrno } from "./directory.ts";
import { rangeStream, type SourceFiles, unreadable } from "./files.ts";
import { findMember, indexTar } from "./tar-index.ts";

export interface ArchiveOptions {
  readonly limits: Limits;
  readonly temporaryDirectory: string;
  readonly progress: Progress;
}

/** The ratio counts after this much output, as for layers. */
const RATIO_AFTER_BYTES = 64 * 1024 * 1024;

/**
 * The members of a tar archive as files, read where they lie: nothing is unpacked. A compressed archive (`docker save | gzip`) can't be
 * read in any order, so it is first decompressed into one file of ours that has no name any more.
 * @throws StowageError `IMAGE_SOURCE_UNREADABLE`, `LIMIT_EXCEEDED`
 */
export async function openArchive(file: string, options: ArchiveOptions, call: Call): Promise<SourceFiles> {
  let handle = await openRegularFile(file);
  try {
    const magic = Buffer.alloc(4);
    await handle.read(magic, 0, magic.length, 0);
    const decompressor =
      magic[0] === 0x1f && magic[1] === 0x8b
        ? createGunzip()
        : magic.readUInt32LE() === 0xfd2fb528
          ? createZstdDecompress()
          : undefined;
    if (decompressor !== undefined) {
      const compressed = handle;
      handle = await decompress(compressed, decompressor, file, options, call);
      await compressed.close();
    }
    const members = await indexTar(handle, file, options.limits.entryHeaderBytesMax, call);
    const find = (path: string) => {
      const member = findMember(members, path);
      if (member?.kind === "other") throw unreadable(file, `${path} is not a regular file`);
      return member?.kind === "file" ? member : undefined;
    };
    return {
      description: file,
      async open(path, streamCall) {
        const member = find(path);
        if (member === undefined) return undefined;
        return { size: member.size, body: rangeStream(handle, member.offset, member.size, file, streamCall) };
      },
      async openRange(path) {
        const member = find(path);
        if (member === undefined) return undefined;
        // The archive stays open as long as the source.
        return { descriptor: handle.fd, start: member.offset, size: member.size, async [Symbol.asyncDispose]() {} };
      },
      async size(path) {
        return find(path)?.size;
      },
      [Symbol.asyncDispose]: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function openRegularFile(file: string): Promise<FileHandle> {
  let handle: FileHandle;
  try {
    // Without waiting: a fifo that nobody writes to would hang here.
    handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw unreadable(file, isErrno(error, "ENOENT") ? "there is no such file" : messageOf(error), error);
  }
  const stat = await handle.stat();
  if (stat.isFile()) return handle;
  await handle.close();
  throw unreadable(
    file,
    stat.isDirectory() ? "it is a directory, not an archive" : "it is not a regular file",
    undefined,
    stat.isDirectory() ? `for an OCI layout write oci:${file}` : "write it to a file first",
  );
}

async function decompress(
  from: FileHandle,
  decompressor: Transform,
  file: string,
  options: ArchiveOptions,
  call: Call,
): Promise<FileHandle> {
  const spill = await openSpill(options.temporaryDirectory);
  try {
    const compressedSize = (await from.stat()).size;
    const task = options.progress.begin(`decompressing ${file}`, compressedSize);
    let written = 0;
    const { layerBytesMax, layerRatioMax } = options.limits;
    const input = rangeStream(from, 0, compressedSize, file, call);
    input.on("data", (chunk: Buffer) => task.advance(chunk.length));
    await pipeline(
      input,
      decompressor,
      async (chunks: AsyncIterable<Buffer>) => {
        for await (const chunk of chunks) {
          if (written + chunk.length > layerBytesMax) {
            throw new StowageError("LIMIT_EXCEEDED", { limit: "layerBytesMax", max: layerBytesMax, where: file });
          }
          if (written > RATIO_AFTER_BYTES && written / compressedSize > layerRatioMax) {
            throw new StowageError("LIMIT_EXCEEDED", { limit: "layerRatioMax", max: layerRatioMax, where: file });
          }
          for (let at = 0; at < chunk.length; ) {
            const { bytesWritten } = await spill.write(chunk, at, chunk.length - at, written).catch((error) => {
              throw temporaryFailure(error, options.temporaryDirectory);
            });
            at += bytesWritten;
            written += bytesWritten;
          }
        }
      },
      { signal: call.signal },
    );
    task.end(`${written} bytes`);
    return spill;
  } catch (error) {
    await spill.close();
    throwIfAborted(call);
    if (error instanceof StowageError) throw error;
    throw unreadable(file, `it can't be decompressed: ${messageOf(error)}`, error);
  }
}

/** A file without a name, so that nothing is left whatever ends the process. */
async function openSpill(directory: string): Promise<FileHandle> {
  const path = join(directory, `stowage-${randomUUID()}`);
  try {
    const spill = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
    await unlink(path);
    return spill;
  } catch (error) {
    throw temporaryFailure(error, directory);
  }
}
