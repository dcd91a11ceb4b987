import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { createHash } from "node:crypto";

const INSTALL = "export DEBIAN_FRONTEND=noninteractive; apt-get install -y -qq python3-venv || { apt-get update -qq && apt-get install -y -qq python3-venv; }";

/**
 * A Python with the packages of a requirements file, in an environment of its own below node_modules/.cache, made once for each list. Installs python3-venv with the system's package manager when it may. Throws when there is none: tests
 * never skip in silence.
 */
export function pythonWith(requirements: string): string {
  const wanted = readFileSync(requirements, "utf8");
  const folder = resolve("node_modules/.cache", `python-${createHash("sha256").update(wanted).digest("hex").slice(0, 16)}`);
  const python = join(folder, "bin", "python");
  const complete = join(folder, "complete");
  if (existsSync(complete)) return python;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(resolve("node_modules/.cache"), { recursive: true });
  if (!venv(folder) && !(install() && venv(folder)))
    throw new Error(
      "the tests of the Python example need python3 with venv: install it (Debian, Ubuntu: apt-get install python3-venv; macOS: brew install python)",
    );
  console.log(`installing ${wanted.trim().split("\n").join(", ")} from PyPI for the Python example`);
  const pip = spawnSync(python, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  if (pip.status !== 0) throw new Error("pip could not install what the Python example needs");
  writeFileSync(`${complete}.new`, "");
  renameSync(`${complete}.new`, complete);
  return python;
}

function venv(folder: string): boolean {
  rmSync(folder, { recursive: true, force: true });
  return spawnSync("python3", ["-m", "venv", folder], { stdio: "ignore" }).status === 0;
}

function install(): boolean {
  const [program, ...args] = [...(process.getuid?.() === 0 ? [] : ["sudo", "-n"]), "sh", "-c", INSTALL];
  return spawnSync(program, args, { stdio: ["ignore", "ignore", "inherit"] }).status === 0;
}
