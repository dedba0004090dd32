// Starts Chromium without a window: the machine's own, or else the one that came as a package (Linux). Its own calls home are turned off: a machine without a way out would wait for them.
import packaged from "@sparticuz/chromium";
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
  executablePath ||= await packaged.executablePath();
  const browser = await chromium.launch({ executablePath, args: [...QUIET, ...AS_ROOT] });
  const page = await browser.newPage();
  page.on("pageerror", (error) => process.stderr.write(`page: ${error}\n`));
  process.once("SIGTERM", async () => {
    await browser.close();
    process.exit();
  });
  return { browser, page };
}
