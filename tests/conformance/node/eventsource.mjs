// npm `eventsource`: the browser's interface in Node. A header is given by wrapping fetch, as its README says.
import { EventSource } from "eventsource";
import { CONTROL_FRAMES, order, report } from "./report.mjs";

const withKey = (input, init) =>
  fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${order.key}` } });

const source = new EventSource(order.url, { fetch: withKey });
source.onopen = () => report("open");
source.onmessage = ({ data, lastEventId }) => report("event", { id: lastEventId, ...JSON.parse(data) });
for (const name of CONTROL_FRAMES) {
  source.addEventListener(name, ({ data }) => report(name, JSON.parse(data)));
}
source.addEventListener("stream.end", () => order.closeAtEnd && source.close());
source.onerror = ({ code }) =>
  report(source.readyState === EventSource.CLOSED ? "stopped" : "lost", { status: code });
