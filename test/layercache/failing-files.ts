import type { CacheFile, CacheFiles } from "../../src/layercache/cache-files.ts";
import { realCacheFiles } from "../../src/layercache/cache-files.ts";

/** Real files, until something is to fail: `fault` says with which errno, if any, a call fails. */
export function failingFiles(fault: (call: string, path: string, bytes: number) => string | undefined): CacheFiles {
  const check = (call: string, path: string, bytes = 0) => {
    const code = fault(call, path, bytes);
    if (code !== undefined) throw Object.assign(new Error(`${code}: ${call} ${path}`), { code });
  };
  return {
    async open(path, flags, mode) {
      check("open", path);
      const file = await realCacheFiles.open(path, flags, mode);
      return new FailingFile(file, (call, bytes) => check(call, path, bytes));
    },
    async mkdir(path, mode, parents) {
      check("mkdir", path);
      await realCacheFiles.mkdir(path, mode, parents);
    },
    async chmod(path, mode) {
      check("chmod", path);
      await realCacheFiles.chmod(path, mode);
    },
    async rename(from, to) {
      check("rename", to);
      await realCacheFiles.rename(from, to);
    },
    async unlink(path) {
      check("unlink", path);
      await realCacheFiles.unlink(path);
    },
    linkStatus: (path) => realCacheFiles.linkStatus(path),
    list: (path) => realCacheFiles.list(path),
    blockBytes: (path) => realCacheFiles.blockBytes(path),
  };
}

class FailingFile implements CacheFile {
  readonly #file: CacheFile;
  readonly #check: (call: string, bytes: number) => void;

  constructor(file: CacheFile, check: (call: string, bytes: number) => void) {
    this.#file = file;
    this.#check = check;
  }

  get descriptor(): number {
    return this.#file.descriptor;
  }

  async write(bytes: Buffer, position: number): Promise<number> {
    this.#check("write", bytes.length);
    return await this.#file.write(bytes, position);
  }

  async read(into: Buffer, position: number): Promise<number> {
    this.#check("read", into.length);
    return await this.#file.read(into, position);
  }

  async truncate(size: number): Promise<void> {
    this.#check("truncate", 0);
    await this.#file.truncate(size);
  }

  status = () => this.#file.status();
  close = () => this.#file.close();
}
