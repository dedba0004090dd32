// Chromium as an npm package, with the libraries and fonts that a bare machine lacks. The package unpacks into the
// temporary folder, where two programs would meet half a file: so each unpacks beside, and the first one's is kept.
import { existsSync } from "node:fs";
import { mkdtemp, rename, rm } from "node:fs/promises";
import { join } from "node:path";

const MODULES = join(import.meta.dirname, "node_modules");
const HOME = join(MODULES, ".chromium");

export async function packagedChromium() {
  if (!existsSync(HOME)) await unpack();
  process.env.FONTCONFIG_PATH ??= join(HOME, "fonts");
  process.env.LD_LIBRARY_PATH = join(HOME, "al2023", "lib");
  return join(HOME, "chromium");
}

async function unpack() {
  const { default: chromium, inflate } = await import("@sparticuz/chromium");
  const beside = await mkdtemp(`${HOME}-`);
  const before = process.env.TMPDIR;
  process.env.TMPDIR = beside;
  await chromium.executablePath();
  await inflate(join(MODULES, "@sparticuz/chromium/bin/al2023.tar.br"));
  if (before === undefined) delete process.env.TMPDIR;
  else process.env.TMPDIR = before;
  await rename(beside, HOME).catch(() => rm(beside, { recursive: true }));
}
