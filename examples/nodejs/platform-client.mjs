// How a platform talks to lectern: sends bookings, changes and cancels, reads answers, asks for a transcoding.
// With TEACHER_TOKEN bookings, changes and cancels go over HTTP, else over Redis.
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { text } from "node:stream/consumers";
import { createClient } from "redis";

const ANSWER_TIMEOUT_MS = 60_000;
const { env } = process;
const ORDER = env.ORDER_CHANNEL ?? "order";
const CANCEL = env.CANCEL_CHANNEL ?? "cancel";
const CHANGE = env.CHANGE_CHANNEL ?? "change";
const CHANGED = env.CHANGE_RESULT_CHANNEL ?? "change_result";
const CANCELLED = env.CANCEL_RESULT_CHANNEL ?? "cancel_result";
const ANSWERS = env.ORDER_RESULT_CHANNEL ?? "order_result";
const EVENTS = env.CLASS_EVENT_CHANNEL ?? "class_event";
const API = env.TEACHER_API ?? "http://127.0.0.1:8800";

async function connected(work) {
  const bus = createClient({ url: env.REDIS_URL ?? "redis://127.0.0.1:6379/0" });
  bus.on("error", (error) => console.error(String(error)));
  await bus.connect();
  try {
    return await work(bus);
  } finally {
    bus.destroy();
  }
}

// A message on a stream waits also while the teacher restarts.
const send = (bus, stream, message) => bus.xAdd(stream, "*", { body: JSON.stringify(message) });

async function newest(bus, stream = ANSWERS) {
  const [last] = await bus.xRevRange(stream, "+", "-", { COUNT: 1 });
  return last?.id ?? "0";
}

async function* answers(bus, after, until, stream = ANSWERS) {
  while (Date.now() < until) {
    const BLOCK = Math.max(1, Math.min(until - Date.now(), 5000));
    const found = await bus.xRead({ key: stream, id: after }, { BLOCK, COUNT: 100 });
    for (const { messages } of found ?? []) {
      for (const { id, message } of messages) {
        after = id;
        yield [id, JSON.parse(message.body)];
      }
    }
  }
}

async function book(path) {
  const booking = JSON.parse(path === "-" ? await text(process.stdin) : await readFile(path, "utf8"));
  return ask(ORDER, booking, ANSWERS);
}

// The fields are JSON with what is new; the class stays as it was until the change is answered with success.
const change = (classId, fields) => ask(CHANGE, { cmd: "change", class_id: classId, ...JSON.parse(fields) }, CHANGED);

const ask = (stream, message, answeredOn) =>
  env.TEACHER_TOKEN ? askOverHttp(message) : askOverRedis(stream, message, answeredOn);

// PUT, PATCH or DELETE; a refusal at once is a problem document, and has a code, too.
async function askOverHttp(message) {
  const method = { order: "PUT", change: "PATCH", cancel: "DELETE" }[message.cmd];
  const path = `/v1/classes/${encodeURIComponent(message.class_id)}?wait=${ANSWER_TIMEOUT_MS / 1000}`;
  const found = await fetch(API + path, {
    method,
    headers: { Authorization: `Bearer ${env.TEACHER_TOKEN}`, "Content-Type": "application/json" },
    body: method === "DELETE" ? undefined : JSON.stringify(message),
    signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS + 10_000),
  });
  const answer = await found.json();
  console.log(JSON.stringify(answer));
  return answer.result === "success" ? 0 : 1;
}

const askOverRedis = (stream, message, answeredOn) =>
  connected(async (bus) => {
    const after = await newest(bus, answeredOn); // before the message is sent, so that a quick answer is not missed
    await send(bus, stream, message);
    for await (const [, answer] of answers(bus, after, Date.now() + ANSWER_TIMEOUT_MS, answeredOn)) {
      if (answer.class_id === message.class_id) {
        console.log(JSON.stringify(answer));
        return answer.result === "success" ? 0 : 1;
      }
    }
    console.error(`no answer within ${ANSWER_TIMEOUT_MS / 1000} s: send it again, that changes nothing`);
    return 1;
  });

// The answer comes once its streamer has confirmed it.
const cancel = (classId) => ask(CANCEL, { cmd: "cancel", class_id: classId }, CANCELLED);

// Keep the last id that was printed, and give it as --after after a restart.
const follow = (stream, after) =>
  connected(async (bus) => {
    for await (const [id, answer] of answers(bus, after ?? (await newest(bus, stream)), Infinity, stream)) {
      console.log(id, JSON.stringify(answer));
    }
    return 0;
  });

// The signature of a request: MD5 of its fields in the order of their names, then the key.
function sign(fields, key) {
  const listed = Object.keys(fields).sort().map((name) => `${name}=${fields[name]}`).join("&");
  return createHash("md5").update(`${listed}&key=${key}`).digest("hex");
}

async function transcode(recordId, resolution) {
  const fields = { record_id: Number(recordId), video_resolution: resolution };
  const answer = await fetch(`${API}/transcode`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...fields, sign: sign(fields, env.TRANSCODE_SIGN_KEY) }),
    signal: AbortSignal.timeout(20_000),
  });
  console.log(answer.status, await answer.text());
  return answer.ok ? 0 : 1;
}

const FOLLOWED = { answers: ANSWERS, events: EVENTS };
const [command, ...given] = process.argv.slice(2);
if (command === "book" && given.length === 1) process.exitCode = await book(given[0]);
else if (command === "change" && given.length === 2) process.exitCode = await change(...given);
else if (command === "cancel" && given.length === 1) process.exitCode = await cancel(given[0]);
else if (command in FOLLOWED && given.length === 0) process.exitCode = await follow(FOLLOWED[command]);
else if (command in FOLLOWED && given[0] === "--after" && given.length === 2) process.exitCode = await follow(FOLLOWED[command], given[1]);
else if (command === "transcode" && given.length === 2) process.exitCode = await transcode(...given);
else {
  console.error("usage: platform-client.mjs book FILE|- | change CLASS_ID JSON | cancel CLASS_ID | answers|events [--after ID] | transcode RECORD_ID RESOLUTION");
  process.exitCode = 2;
}
