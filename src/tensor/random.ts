/** Seeded random numbers: the same seed gives the same sequence on every machine, and the state can be saved. */

/** PCG32 (O'Neill, pcg-random.org; XSH-RR output), with the 64-bit state kept as a bigint. */
export class Random {
  private state: bigint;

  constructor(seed: number | bigint) {
    this.state = BigInt.asUintN(64, BigInt(seed) + increment);
    this.uint32();
  }

  /** Everything needed to go on from here; `Random.from` takes it. */
  save(): string {
    return this.state.toString(16);
  }

  static from(saved: string): Random {
    const random = new Random(0);
    random.state = BigInt.asUintN(64, BigInt(`0x${saved}`));
    return random;
  }

  uint32(): number {
    const old = this.state;
    this.state = BigInt.asUintN(64, old * multiplier + increment);
    const shifted = Number(BigInt.asUintN(32, ((old >> 18n) ^ old) >> 27n));
    const turn = Number(old >> 59n);
    return ((shifted >>> turn) | (shifted << (-turn & 31))) >>> 0;
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

const multiplier = 6364136223846793005n;
const increment = 1442695040888963407n;
