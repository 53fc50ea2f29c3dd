/** What arrives, kept until somebody asks for it. */
export class Mailbox<T> {
  private readonly items: T[] = [];
  private failure: Error | null = null;
  private waiting: { resolve: (item: T) => void; reject: (error: Error) => void } | null = null;

  get isEmpty(): boolean {
    return this.items.length === 0;
  }

  put(item: T): void {
    if (this.waiting === null) this.items.push(item);
    else this.waiting.resolve(item);
    this.waiting = null;
  }

  /** The same, before what has arrived already. */
  putFirst(item: T): void {
    if (this.waiting === null) this.items.unshift(item);
    else this.put(item);
  }

  /** Nothing more comes. What has arrived can still be taken; after that `next` throws `error`. */
  fail(error: Error): void {
    this.failure ??= error;
    this.waiting?.reject(this.failure);
    this.waiting = null;
  }

  /** The next item; at most one caller may wait. */
  next(): Promise<T> {
    const item = this.items.shift();
    if (item !== undefined) return Promise.resolve(item);
    if (this.failure !== null) return Promise.reject(this.failure);
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject };
    });
  }
}
