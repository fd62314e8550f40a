import Foundation

/// When each compiled model was last used, and which go to make room.
///
/// Kept in a file of its own: dates of files are an API that privacy manifests have to give a reason
/// for, and loading a model changes none of them.
public struct CacheUsage: Hashable, Sendable, Codable {
  /// Name of the file in the cache's folder.
  static let fileName = "usage.json"

  /// Seconds since 1970 of the last use, by the folder of a model: the hash of its package.
  public private(set) var lastUse: [String: Double] = [:]

  /// Nothing was used yet.
  public init() {}

  /// Notes a use.
  public mutating func use(_ hash: String, at time: Date) {
    lastUse[hash] = time.timeIntervalSince1970
  }

  /// The models that go: all but the latest ones, and of those without a known use all.
  ///
  /// - Parameters:
  ///   - hashes: folders of the models that there are.
  ///   - count: how many stay.
  ///   - inUse: models that stay whatever their last use.
  public func evicted(from hashes: [String], keeping count: Int, inUse: Set<String>) -> [String] {
    let free = hashes.filter { !inUse.contains($0) }
    let sorted = free.sorted { one, other in
      let (first, second) = (lastUse[one] ?? -1, lastUse[other] ?? -1)
      return first == second ? one < other : first > second
    }
    return Array(sorted.dropFirst(max(0, count - inUse.count)))
  }
}

extension CompiledModelCache {
  /// Notes that a model is used, and removes the ones that have not been for longest.
  ///
  /// - Parameters:
  ///   - location: of the model.
  ///   - count: how many models the cache keeps.
  ///   - inUse: places of models that stay.
  ///   - time: now.
  /// - Throws: the file system's errors.
  public func use(
    _ location: URL, keeping count: Int, inUse: [URL] = [], at time: Date = Date()
  ) throws {
    let files = FileManager.default
    let file = root.appendingPathComponent(CacheUsage.fileName)
    // A file that cannot be read costs no more than the order of eviction.
    var usage =
      (try? JSONDecoder().decode(CacheUsage.self, from: Data(contentsOf: file))) ?? CacheUsage()
    usage.use(Self.hash(of: location), at: time)
    let found = try files.contentsOfDirectory(atPath: root.path)
      .filter { $0 != CacheUsage.fileName }
    let kept = Set((inUse + [location]).map(Self.hash))
    for hash in usage.evicted(from: found, keeping: count, inUse: kept) {
      try files.removeItem(at: root.appendingPathComponent(hash))
    }
    try JSONEncoder().encode(usage).write(to: file, options: .atomic)
  }

  private static func hash(of location: URL) -> String {
    location.deletingLastPathComponent().lastPathComponent
  }
}
