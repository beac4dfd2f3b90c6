/** Captures on disk: which files a path stands for, and the text beside each. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '../../transport/index.ts';
import { type CaptureText, parseCaptureText } from './rcpeer-text.ts';

const EXTENSION = /\.pcap(ng)?$/i;

/**
 * The captures that `paths` name, each once: files as they are, folders with everything below them, in
 * the order of names. Throws Failure E_CAPTURE_NOT_FOUND.
 */
export async function captureFiles(paths: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const path of paths) {
    let isFolder: boolean;
    try {
      isFolder = (await stat(path)).isDirectory();
    } catch (error) {
      throw new Failure(
        'E_CAPTURE_NOT_FOUND',
        (error as Error).message,
        path,
        'a capture or a folder',
      );
    }
    const files = isFolder ? await capturesBelow(path) : [path];
    if (files.length === 0) {
      const what = 'there is no capture in the folder';
      throw new Failure('E_CAPTURE_NOT_FOUND', what, path, 'files named *.pcap or *.pcapng');
    }
    found.push(...files);
  }
  return [...new Set(found)];
}

/** The text beside a capture: the file of that name that ends in .txt. Throws Failure E_SETUP_INVALID. */
export async function textOf(capture: string): Promise<CaptureText | undefined> {
  const path = capture.replace(/\.[^./\\]*$/, '.txt');
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new Failure('E_SETUP_INVALID', (error as Error).message, path, 'a text file');
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new Failure('E_SETUP_INVALID', 'it is not text', path, 'UTF-8');
  }
  return parseCaptureText(text, path);
}

async function capturesBelow(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true });
  return names
    .filter((name) => EXTENSION.test(name))
    .sort()
    .map((name) => join(folder, name));
}
