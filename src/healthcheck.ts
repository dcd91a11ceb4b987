// For the container's HEALTHCHECK, which has no client certificate: is somebody listening where the configuration says? Ready or not is the business of
// grpc.health.v1, which whoever has a certificate can ask.
import { connect } from "node:net";

const address = process.env["LEASEHOLD_HEALTHCHECK_ADDRESS"] ?? "127.0.0.1:8443";
const colon = address.lastIndexOf(":");
const socket = connect({ host: address.slice(0, colon), port: Number(address.slice(colon + 1)), timeout: 2000 });
socket.once("connect", () => process.exit(0));
socket.once("timeout", () => process.exit(1));
socket.once("error", () => process.exit(1));
