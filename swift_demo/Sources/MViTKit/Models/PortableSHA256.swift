/// The hash function SHA-256 (FIPS 180-4), for platforms without CryptoKit.
struct PortableSHA256: Sendable {
  private var state: [UInt32] = [
    0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a,
    0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
  ]
  private var pending: [UInt8] = []
  private var length: UInt64 = 0

  /// A hash of nothing so far.
  init() {}

  /// Adds bytes to what is hashed.
  mutating func update(_ bytes: some Sequence<UInt8>) {
    let added = Array(bytes)
    length += UInt64(added.count)
    if pending.isEmpty {
      let whole = added.count - added.count % 64
      compress(added, whole)
      pending = Array(added[whole...])
    } else {
      pending += added
      let whole = pending.count - pending.count % 64
      compress(pending, whole)
      pending.removeFirst(whole)
    }
  }

  /// Returns the 32 bytes of the hash of all that was added.
  consuming func finalize() -> [UInt8] {
    let bits = length * 8
    var tail = pending + [0x80]
    tail += [UInt8](repeating: 0, count: (120 - tail.count % 64) % 64)
    tail += (0..<8).map { UInt8(truncatingIfNeeded: bits >> (56 - 8 * UInt64($0))) }
    compress(tail, tail.count)
    return state.flatMap { word in
      [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: word >> UInt32($0)) }
    }
  }

  private mutating func compress(_ bytes: [UInt8], _ count: Int) {
    bytes.withUnsafeBufferPointer { bytes in
      roundConstants.withUnsafeBufferPointer { constants in
        withUnsafeTemporaryAllocation(of: UInt32.self, capacity: 64) { words in
          for block in stride(from: 0, to: count, by: 64) {
            for index in 0..<16 {
              let byte = block + index * 4
              words[index] =
                UInt32(bytes[byte]) << 24 | UInt32(bytes[byte + 1]) << 16
                | UInt32(bytes[byte + 2]) << 8 | UInt32(bytes[byte + 3])
            }
            mix(words, constants)
          }
        }
      }
    }
  }

  private mutating func mix(
    _ words: UnsafeMutableBufferPointer<UInt32>, _ constants: UnsafeBufferPointer<UInt32>
  ) {
    for index in 16..<64 {
      let (near, far) = (words[index - 2], words[index - 15])
      words[index] =
        words[index - 16] &+ words[index - 7]
        &+ (rotated(far, 7) ^ rotated(far, 18) ^ far >> 3)
        &+ (rotated(near, 17) ^ rotated(near, 19) ^ near >> 10)
    }
    var (a, b, c, d) = (state[0], state[1], state[2], state[3])
    var (e, f, g, h) = (state[4], state[5], state[6], state[7])
    for index in 0..<64 {
      let first =
        h &+ (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) &+ (e & f ^ ~e & g)
        &+ constants[index] &+ words[index]
      let second = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) &+ (a & b ^ a & c ^ b & c)
      (h, g, f, e) = (g, f, e, d &+ first)
      (d, c, b, a) = (c, b, a, first &+ second)
    }
    for (index, value) in [a, b, c, d, e, f, g, h].enumerated() { state[index] &+= value }
  }
}

@inline(__always)
private func rotated(_ word: UInt32, _ bits: UInt32) -> UInt32 {
  word &>> bits | word &<< (32 - bits)
}

/// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
private let roundConstants: [UInt32] = {
  var primes: [UInt64] = []
  var candidate: UInt64 = 2
  while primes.count < 64 {
    if primes.allSatisfy({ candidate % $0 != 0 }) { primes.append(candidate) }
    candidate += 1
  }
  return primes.map { prime in
    // The largest root with root³ <= prime · 2⁹⁶ is cbrt(prime) · 2³²; its low half is wanted.
    var (low, high): (UInt64, UInt64) = (0, 1 << 35)
    while low + 1 < high {
      let middle = (low + high) / 2
      let square = middle.multipliedFullWidth(by: middle)
      let lowPart = square.low.multipliedFullWidth(by: middle)
      let highPart = (square.high * middle).addingReportingOverflow(lowPart.high)
      let bound = prime << 32
      if highPart.overflow || highPart.partialValue >= bound { high = middle } else { low = middle }
    }
    return UInt32(truncatingIfNeeded: low)
  }
}()
