/** Lets the thread see what has happened meanwhile: messages, timers, input. */
export function eventTurn(): Promise<void> {
  return new Promise((resolve) => {
    if (typeof setImmediate === "function") {
      setImmediate(resolve);
      return;
    }
    // In a browser; a time-out of 0 takes 4 ms there once it is nested.
    const { port1, port2 } = new MessageChannel();
    const arrived = () => {
      port1.close();
      resolve();
    };
    port1.addEventListener("message", arrived);
    port1.start();
    port2.postMessage(undefined);
  });
}
