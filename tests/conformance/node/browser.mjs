// A page of another origin in Chromium. The page's `run(order)` does the watching and calls `report`.
import { launch } from "./chromium.mjs";
import { order, report } from "./report.mjs";

const { page } = await launch(order.chromium);
await page.exposeFunction("report", report);
await page.goto(order.page);
await page.evaluate((given) => window.run(given), order);
