/** Seeded random numbers: the same seed gives the same sequence on every machine, and the state can be saved and restored. */

/** The sfc32 generator of PractRand (Chris Doty-Humphrey): 128 bits of state, 32-bit arithmetic, which is fast in JavaScript. */
export class Random {
  private a: number;
  private b: number;
  private c: number;
  private counter: number;

  /** @param seed an integer; its low 53 bits are used */
  constructor(seed: number) {
    this.a = seed | 0;
    this.b = Math.floor(seed / 2 ** 32) | 0;
    this.c = 0x9e3779b9 | 0;
    this.counter = 1;
    for (let i = 0; i < 16; i++) this.uint32();
  }

  /** Returns the state, for `Random.from`. */
  save(): readonly number[] {
    return [this.a, this.b, this.c, this.counter];
  }

  /** Creates a generator from the state that `save` returned. */
  static from([a = 0, b = 0, c = 0, counter = 1]: readonly number[]): Random {
    return Object.assign(new Random(0), { a, b, c, counter });
  }

  /** Returns a random integer in [0, 2^32). */
  uint32(): number {
    const sum = (this.a + this.b + this.counter) | 0;
    this.counter = (this.counter + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = (((this.c << 21) | (this.c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** Returns a random number in [0, 1). */
  uniform(): number {
    return this.uint32() / 2 ** 32;
  }

  /** Returns a random integer in [0, bound). */
  below(bound: number): number {
    return Math.floor(this.uniform() * bound);
  }

  /** Returns a number of the standard normal distribution (Box-Muller). */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }

  /** Shuffles the items in place (Fisher-Yates), and returns them. */
  shuffle<T>(items: T[]): T[] {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [items[i], items[j]] = [items[j] as T, items[i] as T];
    }
    return items;
  }
}
