// Starts Chromium without a window: the machine's own, or else the packaged one (Linux), which needs nothing of the
// machine. Its calls home are turned off: a machine without a way out would wait for them.
import { packagedChromium } from "./packaged-chromium.mjs";
import { chromium } from "playwright-core";

const QUIET = [
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const AS_ROOT = process.getuid?.() === 0 ? ["--no-sandbox"] : [];

export async function launch(executablePath) {
  executablePath ||= await packagedChromium();
  const browser = await chromium.launch({ executablePath, args: [...QUIET, ...AS_ROOT] });
  const page = await browser.newPage();
  page.on("pageerror", (error) => process.stderr.write(`page: ${error}\n`));
  process.once("SIGTERM", async () => {
    await browser.close();
    process.exit();
  });
  return { browser, page };
}
