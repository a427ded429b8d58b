// A page: two peers with an RTCPeerConnection each, then a joiner of a worker.
import * as sigver from "sigver";

const server = new URLSearchParams(location.search).get("server");
const url = `ws://${server}`;

export async function connect() {
  const opener = await sigver.open(url).ready;
  const joiner = sigver.join(url, opener.key);
  opener.on("join", ({ peer }) => {
    const pc = new RTCPeerConnection();
    sigver.negotiate(pc, peer);
    pc.ondatachannel = ({ channel }) => (channel.onmessage = ({ data }) => channel.send(`you said ${data}`));
  });
  const { peer } = await new Promise((resolve) => joiner.on("join", resolve));
  const pc = new RTCPeerConnection();
  sigver.negotiate(pc, peer);
  const channel = pc.createDataChannel("chat");
  channel.onopen = () => channel.send("hello");
  return new Promise((resolve) => (channel.onmessage = ({ data }) => resolve(data)));
}

export async function askWorker(worker) {
  const key = await new Promise((resolve) => (worker.onmessage = ({ data }) => resolve(data)));
  const joiner = await sigver.join(url, key, { secret: "sixteen bytes or more" }).ready;
  const [peer] = joiner.peers;
  peer.send("hello");
  return new Promise((resolve) => peer.on("data", ({ data }) => resolve(data)));
}

globalThis.connected = connect();
