// npm `eventsource-client`: a modern EventSource with headers of its own. Every frame comes to one function, by name.
import { createEventSource } from "eventsource-client";
import { order, report } from "./report.mjs";

let status;

const source = createEventSource({
  url: order.url,
  headers: { Authorization: `Bearer ${order.key}` },
  fetch: async (input, init) => {
    const response = await fetch(input, init);
    ({ status } = response);
    return response;
  },
  onConnect: () => report("open"),
  onMessage: ({ data, event, id }) => {
    if (!event) report("event", { id, ...JSON.parse(data) });
    else report(event, JSON.parse(data));
    if (event === "stream.end" && order.closeAtEnd) source.close();
  },
  onDisconnect: () => report(status === 204 ? "stopped" : "lost", { status }),
  onScheduleReconnect: () => report("lost"),
});
