/**
 * Memory in pages of 2 MB. A language model that writes reads all of its weights for each token; in pages of 4 kB, looking up where they lie
 * takes the processor up to a seventh of the time. Linux gives large pages to memory that asks for them, and glibc asks if it was told to when its
 * process began: so this is an environment to start a process with, which on other systems changes nothing.
 */

const name = "glibc.malloc.hugetlb";

/** A process's environment, with large pages; whoever has set how glibc does that decides. */
export function withLargePages(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const tunables = environment.GLIBC_TUNABLES ?? "";
  if (tunables.includes(name)) return environment;
  return { ...environment, GLIBC_TUNABLES: [...(tunables ? [tunables] : []), `${name}=1`].join(":") };
}
