// What a client tells the test: one JSON object a line, in the order in which things happened.
// `order` is what the test asked for: { url, key?, closeAtEnd }.

export const order = JSON.parse(process.argv[2]);

export const CONTROL_FRAMES = ["stream.caught_up", "stream.end", "stream.reconnect", "stream.reset", "stream.gap"];

export function report(fact, details = {}) {
  process.stdout.write(JSON.stringify({ fact, ...details }) + "\n");
}
