/** The shapes of what the API answers, which docs/page.md documents, and of what views are: for the type checker alone. */

/** A held-out bound, give or take `half` (95 %) where that is known. */
export type Bits = { value: number; half: number | null; unit: string; step: number };

/** A run in a few words, as the list and the events carry it. */
export interface Summary {
  /** Its path below the folder of runs. */
  name: string;
  state: "training" | "finished" | "stopped" | "ended abruptly" | "empty";
  step: number | null;
  steps: number | null;
  /** Channels, height, width. */
  shape: number[];
  classes: string[];
  bits: Bits | null;
  loss: number | null;
  images_per_s: number | null;
  /** Seconds until the training ends. */
  left_s: number | null;
  /** Seconds since 1970. */
  updated: number | null;
  /** How many grids of samples there are. */
  grids: number;
  incidents: number;
  /** Whether there are weights to sample from. */
  has_model: boolean;
}

export interface Operator {
  name: string;
  what: string;
  options: { name: string; default: unknown; what: string }[];
}

export interface Details extends Summary {
  config: Record<string, Record<string, unknown>>;
  grid_steps: number[];
  pictures: string[];
  evaluation: Record<string, any> | null;
  sources: Record<string, any> | null;
  incident_lines: string[];
  machine: Record<string, unknown>;
  samplers: string[];
  methods: string[];
  operators: Operator[];
  /** The settings that sampling has by default. */
  sampling: { sampler: string; steps: number | null; guidance: number };
}

/** null is a gap. */
export type Curve = { x: number[]; y: (number | null)[]; half?: (number | null)[]; unit?: string };
/** loss, bits and images_per_s by step. */
export type Curves = Record<string, Curve>;

/** A held-out example. */
export type Example = { id: string; label: string | null };

/** An image that the server keeps, byte for byte; its size is that of the upright image. */
export interface Upload {
  id: string;
  name: string;
  width: number;
  height: number;
  bands: string;
  has_alpha: boolean;
  notices: string[];
}

export type Role =
  | "sample"
  | "variant"
  | "mean"
  | "deviation"
  | "low"
  | "high"
  | "picture"
  | "damaged"
  | "known"
  | "original"
  | "film"
  | "frame"
  | "nearest"
  | "archive";

/** A file of a job's results; a frame has its log-SNR. */
export type JobFile = { name: string; role: Role; index?: number; log_snr?: number };

export interface Job {
  id: string;
  run: string;
  kind: "sample" | "vary" | "interpolate" | "inpaint" | "restore" | "degrade" | "likelihood" | "nearest" | "inspect";
  options: Record<string, any>;
  state: "waiting" | "running" | "done" | "cancelled" | "failed";
  done: number | null;
  total: number | null;
  unit: string;
  title: string;
  /** What was said meanwhile. */
  lines: string[];
  error: string | null;
  files: JobFile[];
  numbers: Record<string, any>;
  /** Seconds since 1970. */
  made: number;
  /** Counts the previews; 0 = none. */
  preview: number;
}

/** Where a view is shown: #/run/NAME/VIEW?QUERY. `run` is "" for a view of no run; job=ID asks for that job's results. */
export interface Place {
  run: string;
  query: URLSearchParams;
}

/** `close` ends what the view began (subscriptions, listeners), when another view is shown. */
export interface View {
  node: HTMLElement;
  close?: () => void;
}

export type Api = typeof import("./api.js");

/** What each file of views/ exports as `view`. */
export type MakeView = (place: Place, api: Api) => View | Promise<View>;
