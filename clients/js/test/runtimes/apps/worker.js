// The worker opens a key, and echoes.
import * as sigver from "sigver";

const opener = sigver.open(`ws://${new URL(location.href).searchParams.get("server")}`, undefined, { secret: "sixteen bytes or more" });
opener.on("opened", ({ key }) => postMessage(key));
opener.on("join", ({ peer }) => peer.on("data", ({ data }) => peer.send(`${data} from a worker`)));
