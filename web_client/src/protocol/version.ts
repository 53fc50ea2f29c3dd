/** PROTOCOL.md, which both ends must speak in the same version. */
export const PROTOCOL_VERSION = 1;
