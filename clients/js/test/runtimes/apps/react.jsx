// A chat in StrictMode, which mounts each component twice: each peer must be connected once.
import { StrictMode, useEffect, useRef, useState } from "react";
import { createRoot } from "react-dom/client";
import * as sigver from "sigver";

const query = new URLSearchParams(location.search);
const url = `ws://${query.get("server")}`;
globalThis.connections = 0;
globalThis.openChannels = 0;

function Chat() {
  const [lines, setLines] = useState([]);
  const [state, setState] = useState("connecting");
  const channels = useRef(new Set());

  useEffect(() => {
    const signaling = query.has("open") ? sigver.open(url, query.get("key")) : sigver.join(url, query.get("key"), { wait: 60 });
    const show = () => setState(signaling.state);
    for (const type of ["opened", "joined", "reconnecting", "closed"]) signaling.on(type, show);
    const pcs = new Set();
    signaling.on("join", ({ peer }) => {
      const pc = new RTCPeerConnection();
      globalThis.connections += 1;
      pcs.add(pc);
      sigver.negotiate(pc, peer);
      const channel = pc.createDataChannel("chat", { negotiated: true, id: 0 });
      channel.onopen = () => (globalThis.openChannels = channels.current.add(channel).size);
      channel.onclose = () => channels.current.delete(channel);
      channel.onmessage = ({ data }) => setLines((lines) => [...lines, data]);
    });
    return () => {
      signaling.close();
      pcs.forEach((pc) => pc.close());
    };
  }, []);

  const send = () => channels.current.forEach((channel) => channel.send(`from ${query.get("name")}`));
  return <main data-state={state}><button onClick={send}>Send</button><ul>{lines.map((line, at) => <li key={at}>{line}</li>)}</ul></main>;
}

createRoot(document.body.appendChild(document.createElement("div"))).render(<StrictMode><Chat /></StrictMode>);
