/** Work that is begun before its result is asked for. */

/** Results of `plan` and then `load`, in order: plans are made one after the other, what they ask for is loaded side by side. */
export class Prefetcher<Plan, Result> {
  private readonly plan: () => Promise<Plan>;
  private readonly load: (plan: Plan) => Promise<Result>;
  private readonly ahead: number;
  private readonly queue: Promise<Result>[] = [];
  private planned: Promise<unknown> = Promise.resolve();

  /** @param ahead results that are on their way while one is used */
  constructor(plan: () => Promise<Plan>, load: (plan: Plan) => Promise<Result>, ahead: number) {
    this.plan = plan;
    this.load = load;
    this.ahead = ahead;
  }

  /** The next result; the ones after it are begun. */
  next(): Promise<Result> {
    while (this.queue.length <= this.ahead) this.begin();
    return this.queue.shift() as Promise<Result>;
  }

  /** Waits for what was begun, so that nothing that it reads from is closed under it. */
  async settle(): Promise<void> {
    await Promise.allSettled(this.queue.splice(0));
  }

  private begin(): void {
    const plan = this.planned.then(() => this.plan());
    const result = plan.then((made) => this.load(made));
    // A failure is met when its turn comes.
    result.catch(() => {});
    this.planned = plan;
    this.queue.push(result);
  }
}
