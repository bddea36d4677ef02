/** Seeded random numbers: the same seed gives the same sequence on every machine, and the state can be saved. */

/** The sfc32 generator of PractRand (Chris Doty-Humphrey): 128 bits of state in 32-bit arithmetic, so it is fast here. */
export class Random {
  private a: number;
  private b: number;
  private c: number;
  private counter: number;

  /** @param seed a whole number; its low 53 bits count */
  constructor(seed: number) {
    this.a = seed | 0;
    this.b = Math.floor(seed / 2 ** 32) | 0;
    this.c = 0x9e3779b9 | 0;
    this.counter = 1;
    for (let i = 0; i < 16; i++) this.uint32();
  }

  /** Everything needed to go on from here; `Random.from` takes it. */
  save(): readonly number[] {
    return [this.a, this.b, this.c, this.counter];
  }

  static from([a = 0, b = 0, c = 0, counter = 1]: readonly number[]): Random {
    return Object.assign(new Random(0), { a, b, c, counter });
  }

  uint32(): number {
    const sum = (this.a + this.b + this.counter) | 0;
    this.counter = (this.counter + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = (((this.c << 21) | (this.c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** A number in [0, 1). */
  uniform(): number {
    return this.uint32() / 2 ** 32;
  }

  /** A whole number in [0, bound). */
  below(bound: number): number {
    return Math.floor(this.uniform() * bound);
  }

  /** A normally distributed number (Box-Muller). */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }

  /** The items in random order (Fisher-Yates), in place. */
  shuffle<T>(items: T[]): T[] {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [items[i], items[j]] = [items[j] as T, items[i] as T];
    }
    return items;
  }
}
