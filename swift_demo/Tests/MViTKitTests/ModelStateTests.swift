import Foundation
import Testing

@testable import MViTKit

@Suite("Load state")
struct LoadStateTests {
  @Test("goes from a request through compiling and loading to ready")
  func path() {
    var machine = LoadStateMachine()
    #expect(machine.state == .idle && !machine.state.isBusy && machine.state.name == nil)
    let ticket = machine.request("a", needsCompiling: true)
    #expect(machine.state == .compiling(name: "a") && machine.state.isBusy)
    var accepted = machine.compiled(ticket)
    #expect(accepted)
    #expect(machine.state == .loading(name: "a") && machine.state.isBusy)
    accepted = machine.loaded(ticket)
    #expect(accepted)
    #expect(machine.state == .ready(name: "a") && !machine.state.isBusy)
    machine.unload()
    #expect(machine.state == .idle)
  }

  @Test("skips compiling where that was done before")
  func compiledBefore() {
    var machine = LoadStateMachine()
    let ticket = machine.request("a", needsCompiling: false)
    #expect(machine.state == .loading(name: "a"))
    var accepted = machine.compiled(ticket)
    #expect(!accepted)
    accepted = machine.loaded(ticket)
    #expect(accepted)
  }

  @Test("ignores news of a request that another one replaced")
  func staleTickets() {
    var machine = LoadStateMachine()
    let first = machine.request("a", needsCompiling: true)
    let second = machine.request("b", needsCompiling: true)
    var accepted = machine.compiled(first)
    #expect(!accepted)
    accepted = machine.failed(first, message: "late")
    #expect(!accepted)
    #expect(machine.state == .compiling(name: "b"))
    accepted = machine.compiled(second)
    #expect(accepted)
    accepted = machine.loaded(first)
    #expect(!accepted)
    machine.unload()
    accepted = machine.loaded(second)
    #expect(!accepted)
    #expect(machine.state == .idle)
  }

  @Test("fails from any step, once, and begins anew with the next request")
  func failures() {
    var machine = LoadStateMachine()
    for steps in 0..<3 {
      let ticket = machine.request("a", needsCompiling: true)
      if steps > 0 { machine.compiled(ticket) }
      if steps > 1 { machine.loaded(ticket) }
      var accepted = machine.failed(ticket, message: "why")
      #expect(accepted)
      #expect(machine.state == .failed(name: "a", message: "why"))
      accepted = machine.failed(ticket, message: "again")
      #expect(!accepted)
      accepted = machine.loaded(ticket)
      #expect(!accepted)
    }
  }
}

@Suite("Latencies")
struct LatencyRingTests {
  @Test("are summed up as NumPy's percentile does")
  func statistics() throws {
    var ring = LatencyRing(capacity: 100)
    #expect(ring.median == nil && ring.p95 == nil && ring.framesPerSecond == nil)
    for (index, value) in [4.0, 1, 3, 2].enumerated() {
      ring.record(seconds: value, finishedAt: Double(index) / 2)
    }
    // numpy.percentile([4, 1, 3, 2], [50, 95]) is [2.5, 3.85].
    #expect(ring.median == 2.5)
    #expect(abs(try #require(ring.p95) - 3.85) < 1e-12)
    #expect(ring.mean == 2.5 && ring.minimum == 1 && ring.maximum == 4)
    // Four results in the 1.5 seconds between the first and the last.
    #expect(ring.framesPerSecond == 2)
  }

  @Test("are the latest ones only")
  func wraps() {
    var ring = LatencyRing(capacity: 3)
    for value in 1...8 { ring.record(seconds: Double(value), finishedAt: Double(value)) }
    #expect(ring.count == 3 && ring.minimum == 6 && ring.median == 7 && ring.maximum == 8)
    #expect(ring.framesPerSecond == 1)
  }

  @Test("leave the warm-up out, again after a reset")
  func warmUp() {
    var ring = LatencyRing(capacity: 3, warmUp: 2)
    for value in [100.0, 50, 1] { ring.record(seconds: value, finishedAt: value) }
    #expect(ring.count == 1 && ring.maximum == 1)
    #expect(ring.framesPerSecond == nil)
    ring.reset()
    ring.record(seconds: 100, finishedAt: 0)
    #expect(ring.count == 0)
  }
}

@Suite("SHA-256")
struct SHA256Tests {
  @Test(
    "of the examples of FIPS 180-4",
    arguments: [
      ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
      ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
      (
        "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
      ),
    ])
  func examples(text: String, hash: String) {
    #expect(portable(Data(text.utf8)) == hash)
    #expect(ContentDigest.hex(of: Data(text.utf8)) == hash)
  }

  private func portable(_ bytes: Data) -> String {
    var hash = PortableSHA256()
    hash.update(bytes)
    return hexadecimal(hash.finalize())
  }

  @Test("of a file, read in pieces")
  func file() throws {
    try withTemporaryFolder { folder in
      let file = folder.appendingPathComponent("file")
      let content = Data((0..<(3 << 20) + 17).map { UInt8(truncatingIfNeeded: $0 &* 31) })
      try content.write(to: file)
      var digest = ContentDigest()
      #expect(try digest.update(contentsOf: file) == content.count)
      #expect(digest.finalize() == ContentDigest.hex(of: content))
    }
  }

  @Test("of a million letters, in pieces of any size")
  func pieces() {
    var hash = PortableSHA256()
    var left = 1_000_000
    var size = 1
    while left > 0 {
      hash.update([UInt8](repeating: UInt8(ascii: "a"), count: min(size, left)))
      left -= size
      size = size * 3 % 4001
    }
    let hex = hash.finalize().map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    #expect(hex == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
  }

  @Test("of every length around the end of a block")
  func lengths() {
    // sha256 of as many zero bytes, by coreutils' sha256sum.
    let known = [
      55: "02779466cdec163811d078815c633f21901413081449002f24aa3e80f0b88ef7",
      56: "d4817aa5497628e7c77e6b606107042bbba3130888c5f47a375e6179be789fbb",
      63: "c7723fa1e0127975e49e62e753db53924c1bd84b8ac1ac08df78d09270f3d971",
      64: "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b",
      65: "98ce42deef51d40269d542f5314bef2c7468d401ad5d85168bfab4c0108f75f7",
    ]
    for (length, hash) in known {
      #expect(portable(Data(count: length)) == hash)
      #expect(ContentDigest.hex(of: Data(count: length)) == hash)
    }
  }
}

@Suite("Compiled models")
struct CompiledModelCacheTests {
  @Test("lie under the hash of the package's content, whatever its place and dates")
  func location() throws {
    try withTemporaryFolder { folder in
      let cache = CompiledModelCache(root: folder.appendingPathComponent("cache"))
      let one = try makePackage(folder, "one/model.mlpackage", weights: "abc")
      let two = try makePackage(folder, "two/model.mlpackage", weights: "abc")
      let other = try makePackage(folder, "three/model.mlpackage", weights: "abd")
      let place = try cache.location(for: one)
      #expect(try cache.location(for: two) == place)
      #expect(try cache.location(for: other) != place)
      #expect(place.lastPathComponent == "model.mlmodelc")
      let hash = try CompiledModelCache.contentHash(of: one)
      #expect(place.deletingLastPathComponent().lastPathComponent == hash)
      #expect(hash.count == 64)
      // Finder leaves these behind.
      try Data("x".utf8).write(to: one.appendingPathComponent(".DS_Store"))
      #expect(try cache.location(for: one) == place)
    }
  }

  @Test("change their place with a file's name and with where one file ends")
  func names() throws {
    try withTemporaryFolder { folder in
      func hash(_ name: String, _ files: [String: String]) throws -> String {
        let package = folder.appendingPathComponent(name)
        try FileManager.default.createDirectory(at: package, withIntermediateDirectories: true)
        for (path, text) in files {
          try Data(text.utf8).write(to: package.appendingPathComponent(path))
        }
        return try CompiledModelCache.contentHash(of: package)
      }
      let hashes = [
        try hash("a", ["x": "12", "y": "3"]), try hash("b", ["x": "1", "y": "23"]),
        try hash("c", ["x": "12", "z": "3"]), try hash("d", ["x": "12"]), try hash("e", [:]),
        // What two files would be without their lengths.
        try hash("f", ["x": "121 y 3"]),
      ]
      #expect(Set(hashes).count == hashes.count)
    }
  }

  @Test("of packages that are gone are removed")
  func cleaning() throws {
    try withTemporaryFolder { folder in
      let cache = CompiledModelCache(root: folder.appendingPathComponent("cache"))
      #expect(throws: Never.self) { try cache.removeAll(except: []) }
      let kept = try cache.location(
        for: makePackage(folder, "one/model.mlpackage", weights: "abc"))
      let gone = try cache.location(
        for: makePackage(folder, "two/model.mlpackage", weights: "abd"))
      for place in [kept, gone] {
        try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
      }
      try cache.removeAll(except: [kept])
      #expect(FileManager.default.fileExists(atPath: kept.path))
      #expect(!FileManager.default.fileExists(atPath: gone.path))
    }
  }

  private func makePackage(_ folder: URL, _ path: String, weights: String) throws -> URL {
    let package = folder.appendingPathComponent(path)
    let inner = package.appendingPathComponent("Data/weights")
    try FileManager.default.createDirectory(at: inner, withIntermediateDirectories: true)
    try Data("{}".utf8).write(to: package.appendingPathComponent("Manifest.json"))
    try Data(weights.utf8).write(to: inner.appendingPathComponent("weight.bin"))
    return package
  }
}
