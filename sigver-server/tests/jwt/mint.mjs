// Makes keys and tokens with jose, and prints the public keys and the tokens as JSON.
import { exportJWK, generateKeyPair, generateSecret, SignJWT } from "jose";

const keys = [];
const tokens = [];
for (const alg of ["HS256", "ES256", "EdDSA", "Ed25519"]) {
  const { privateKey, publicKey } =
    alg === "HS256" ? await secret() : await generateKeyPair(alg, { extractable: true });
  const kid = `jose-${alg}`;
  keys.push({ ...(await exportJWK(publicKey)), kid, alg, use: "sig" });
  const sign = (header) =>
    new SignJWT({ open: ["alice-*"], join: ["*"] })
      .setSubject("alice")
      .setAudience("sigver")
      .setNotBefore("-1m")
      .setExpirationTime("1h")
      .setProtectedHeader({ alg, ...header })
      .sign(privateKey);
  tokens.push(await sign({ kid }), await sign({}), await sign({ kid, typ: "JWT" }));
}
console.log(JSON.stringify({ keys, tokens }));

async function secret() {
  const key = await generateSecret("HS256", { extractable: true });
  return { privateKey: key, publicKey: key };
}
