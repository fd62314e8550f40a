import Foundation
import MViTKit
import Testing

/// Stands in for Core ML's compiler: what it makes holds a number that counts up.
private actor FakeCompiler {
  private let folder: URL
  private(set) var count = 0
  private var gate: CheckedContinuation<Void, Never>?
  private var isHeld = false

  init(folder: URL) { self.folder = folder }

  func hold() { isHeld = true }
  func isWaiting() -> Bool { gate != nil }
  func release() {
    gate?.resume()
    gate = nil
  }

  func compile() async throws -> URL {
    count += 1
    if isHeld { await withCheckedContinuation { gate = $0 } }
    let made = folder.appendingPathComponent("compiled-\(count).mlmodelc")
    try FileManager.default.createDirectory(at: made, withIntermediateDirectories: true)
    try Data("\(count)".utf8).write(to: made.appendingPathComponent("model.mil"))
    return made
  }
}

private struct Refused: Error {}

@Suite("Compiled models of a process", .timeLimit(.minutes(1)))
struct CompiledModelsTests {
  private func package(_ folder: URL, _ name: String = "a", weights: String = "w") throws -> URL {
    let package = folder.appendingPathComponent("\(name).mlpackage")
    try FileManager.default.createDirectory(at: package, withIntermediateDirectories: true)
    try Data(weights.utf8).write(to: package.appendingPathComponent("weight.bin"))
    return package
  }

  private func models(
    _ folder: URL, _ compiler: FakeCompiler, capacity: Int = 8
  ) -> (CompiledModels, CompiledModelCache) {
    let cache = CompiledModelCache(root: folder.appendingPathComponent("cache"))
    return (
      CompiledModels(cache: cache, capacity: capacity) { _ in try await compiler.compile() }, cache
    )
  }

  private func content(_ compiled: URL) throws -> String {
    String(
      decoding: try Data(contentsOf: compiled.appendingPathComponent("model.mil")), as: UTF8.self)
  }

  @Test("are made once, also for two who ask at the same time, and found after a restart")
  func once() async throws {
    try await withTemporaryFolder { folder in
      let compiler = FakeCompiler(folder: folder)
      let (models, cache) = models(folder, compiler)
      let package = try package(folder)
      #expect(try models.needsCompiling(package))
      await compiler.hold()
      async let first = models.compiled(package)
      async let second = models.compiled(package)
      while await !compiler.isWaiting() { await Task.yield() }
      await compiler.release()
      #expect(try await first == second)
      #expect(await compiler.count == 1)
      #expect(try !models.needsCompiling(package))
      let again = CompiledModels(cache: cache) { _ in throw Refused() }
      #expect(try content(await again.compiled(package)) == "1")
      let compiled = URL(fileURLWithPath: "/b.mlmodelc")
      #expect(try await models.compiled(compiled) == compiled)
    }
  }

  @Test("that cannot be loaded are made anew, once")
  func broken() async throws {
    try await withTemporaryFolder { folder in
      let compiler = FakeCompiler(folder: folder)
      let (models, _) = models(folder, compiler)
      let package = try package(folder)
      _ = try await models.compiled(package)
      let loaded = try await models.load(package) { compiled in
        guard try content(compiled) != "1" else { throw Refused() }
        return try content(compiled)
      }
      #expect(loaded == "2")
      await #expect(throws: Refused.self) {
        try await models.load(package) { _ in throw Refused() }
      }
      #expect(await compiler.count == 3)
    }
  }

  @Test("that were made just now are not made again when they cannot be loaded")
  func freshlyBroken() async throws {
    try await withTemporaryFolder { folder in
      let compiler = FakeCompiler(folder: folder)
      let (models, _) = models(folder, compiler)
      let package = try package(folder)
      await #expect(throws: Refused.self) {
        try await models.load(package) { _ in throw Refused() }
      }
      #expect(await compiler.count == 1)
    }
  }

  @Test("of which only an empty folder is left are made anew")
  func empty() async throws {
    try await withTemporaryFolder { folder in
      let compiler = FakeCompiler(folder: folder)
      let (models, cache) = models(folder, compiler)
      let package = try package(folder)
      let location = try cache.location(for: package)
      try FileManager.default.createDirectory(at: location, withIntermediateDirectories: true)
      #expect(try models.needsCompiling(package))
      #expect(try content(await models.compiled(package)) == "1")
    }
  }

  @Test("that were not used for longest make room, but none that this process uses")
  func eviction() async throws {
    try await withTemporaryFolder { folder in
      let compiler = FakeCompiler(folder: folder)
      let packages = try (0..<4).map { try package(folder, "p\($0)", weights: "\($0)") }
      var places: [URL] = []
      for package in packages {
        // A process of its own each.
        places.append(try await models(folder, compiler, capacity: 2).0.compiled(package))
      }
      #expect(
        places.map { FileManager.default.fileExists(atPath: $0.path) }
          == [false, false, true, true])
      let (models, _) = models(folder, compiler, capacity: 1)
      let used = [try await models.compiled(packages[2]), try await models.compiled(packages[3])]
      #expect(used.allSatisfy { FileManager.default.fileExists(atPath: $0.path) })
    }
  }
}

@Suite("Which compiled models go")
struct CacheUsageTests {
  @Test("are those whose last use is longest ago, and those never used before any other")
  func order() {
    var usage = CacheUsage()
    for (index, hash) in ["old", "new", "middle"].enumerated() {
      usage.use(hash, at: Date(timeIntervalSince1970: [1.0, 3, 2][index]))
    }
    let all = ["middle", "never", "new", "old"]
    #expect(usage.evicted(from: all, keeping: 2, inUse: []) == ["old", "never"])
    #expect(usage.evicted(from: all, keeping: 2, inUse: ["old"]) == ["middle", "never"])
    #expect(usage.evicted(from: all, keeping: 9, inUse: []).isEmpty)
    #expect(usage.evicted(from: all, keeping: 0, inUse: Set(all)).isEmpty)
  }

  @Test("lie in a folder of the app's own name")
  func namespace() {
    let one = CompiledModelCache.standard(bundleIdentifier: "org.example.One").root
    let other = CompiledModelCache.standard(bundleIdentifier: "org.example.Other").root
    #expect(one != other)
    #expect(one.pathComponents.suffix(2) == ["org.example.One", "com.mvit-coreml.compiled-models"])
  }

  @Test("a place outside the cache is never removed")
  func outside() throws {
    try withTemporaryFolder { folder in
      let cache = CompiledModelCache(root: folder.appendingPathComponent("cache"))
      let other = folder.appendingPathComponent("mine/a.mlmodelc")
      try FileManager.default.createDirectory(at: other, withIntermediateDirectories: true)
      try cache.remove(other)
      #expect(FileManager.default.fileExists(atPath: other.path))
    }
  }
}
