// The example's page in Chromium, used as a person would: watch, drop, come back, watch to the end.
import { launch } from "./chromium.mjs";
import { order, report } from "./report.mjs";

const { browser, page } = await launch(order.chromium);
const ticks = (count) => page.waitForFunction((n) => document.querySelectorAll("#ticks i").length >= n, count);
const state = (text) => page.waitForFunction((t) => document.querySelector("#state").textContent.includes(t), text);

await page.goto(order.url);
await ticks(10);
await page.click("#drop");
await state("away");
report("dropped");
await page.click("#drop");
await state("finished");
report("finished", {
  state: await page.textContent("#state"),
  text: await page.textContent("#text"),
  log: await page.locator("#log li").allTextContents(),
});
await browser.close();
