/** Where the page's server has the runtime's files, with a slash at the end; vite.config.ts fills it in. */
declare const __ORT_FOLDER__: string;

/** Moves a file of the private file system; the standard does not have it yet, browsers do. */
interface FileSystemFileHandle {
  move(name: string): Promise<void>;
}

/** Missing from TypeScript's library for workers. */
declare const GPUBufferUsage: { readonly STORAGE: number; readonly COPY_SRC: number; readonly COPY_DST: number; readonly MAP_READ: number };
declare const GPUMapMode: { readonly READ: number };
