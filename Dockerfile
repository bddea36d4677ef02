# Build tools stay in this stage.
FROM node:22-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY . .
RUN npm run build
RUN npm prune --omit=dev
# onnxruntime-node contains the libraries of all systems: 220 MB that Linux cannot use.
RUN rm -rf node_modules/onnxruntime-node/bin/napi-v*/darwin node_modules/onnxruntime-node/bin/napi-v*/win32

FROM node:22-bookworm-slim
LABEL org.opencontainers.image.title="minigpt4" \
      org.opencontainers.image.description="MiniGPT-4 in TypeScript: chat about images with an OpenAI-compatible server" \
      org.opencontainers.image.licenses="Apache-2.0"
# Without this variable, ONNX Runtime stores a device identifier and sends telemetry.
ENV NODE_ENV=production \
    MINIGPT4_CACHE=/var/cache/minigpt4 \
    ORT_DISABLE_TELEMETRY=1
WORKDIR /app
COPY --from=build /app/package.json /app/LICENSE ./
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/models models
COPY --from=build /app/recipes recipes
COPY --from=build /app/examples/images examples/images
COPY --from=build /app/dist dist
RUN chmod +x dist/cli/main.js && ln -s /app/dist/cli/main.js /usr/local/bin/minigpt4
# A new volume inherits its owner from this folder.
RUN install -d -o node -g node /var/cache/minigpt4
VOLUME /var/cache/minigpt4
USER node
EXPOSE 8000
# The language model may have to be downloaded first.
HEALTHCHECK --interval=30s --timeout=5s --start-period=5m \
  CMD ["node", "-e", "fetch('http://127.0.0.1:8000/health').then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["minigpt4"]
CMD ["serve", "--host", "0.0.0.0"]
