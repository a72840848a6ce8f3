// Speaks the stream protocol in both directions with js-libp2p, for node/tests/p2p/js.rs.
//
// Prints one JSON object a line: first its own id and address; then whatever it was asked. For each address that comes
// on standard input, opens a stream to that node, sends the minimal request, and prints the answer.

import { createInterface } from 'node:readline'
import { noise } from '@chainsafe/libp2p-noise'
import { identify } from '@libp2p/identify'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

// For Node.js before 22.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new this((a, b) => { resolve = a; reject = b })
  return { promise, resolve, reject }
}

const PROTOCOL = '/http'
const say = (value) => console.log(JSON.stringify(value))
const text = (chunk) => new TextDecoder('latin1').decode(chunk.subarray())
const bytes = (string) => new TextEncoder().encode(string)

const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify() }
})

/** Reads until head and announced body are there. */
async function message (stream) {
  let received = ''
  for await (const chunk of stream) {
    received += text(chunk)
    const end = received.indexOf('\r\n\r\n')
    if (end < 0) continue
    const length = /\r\ncontent-length: *(\d+)/i.exec(received.slice(0, end))
    if (received.length >= end + 4 + Number(length?.[1] ?? 0)) break
  }
  return received
}

// The side that is asked.
await node.handle(PROTOCOL, async (stream) => {
  const request = await message(stream)
  say({ request })
  const body = 'x'.repeat(300000)
  stream.send(bytes(`HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-length: ${body.length}\r\n\r\n`))
  for (let at = 0; at < body.length; at += 10000) {
    if (!stream.send(bytes(body.slice(at, at + 10000)))) await stream.onDrain()
  }
  await stream.close()
})

say({ id: node.peerId.toString(), address: node.getMultiaddrs()[0].toString() })

// The side that asks.
for await (const line of createInterface({ input: process.stdin })) {
  const address = multiaddr(line)
  const peer = address.toString().split('/').at(-1)
  const stream = await node.dialProtocol(address, PROTOCOL)
  stream.send(bytes(`POST /api/v0/id HTTP/1.1\r\nhost: ${peer}\r\ncontent-length: 0\r\n\r\n`))
  say({ answer: await message(stream) })
  await stream.close()
}
await node.stop()
