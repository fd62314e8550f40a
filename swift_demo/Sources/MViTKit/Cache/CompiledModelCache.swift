import Foundation

/// Where compiled models are kept: under a name that changes with the package's content alone.
///
/// Core ML's own cache on the device is keyed by path, so a stable path saves the second launch
/// from specialising the model again, and a changed package never meets an old compilation.
public struct CompiledModelCache: Hashable, Sendable {
  /// The folder of all compiled models, such as one in Application Support.
  public let root: URL

  /// A cache in a folder of its own, which need not exist yet.
  public init(root: URL) {
    self.root = root
  }

  /// The app's own: `Application Support/<bundle identifier>/com.mvit-coreml.compiled-models`.
  ///
  /// The bundle identifier keeps apart what apps without a container write, such as tools on macOS.
  ///
  /// - Parameter bundleIdentifier: of the app; a tool without one gets a name of its own.
  public static func standard(
    bundleIdentifier: String? = Bundle.main.bundleIdentifier
  ) -> CompiledModelCache {
    let support = FileManager.default.urls(for: .applicationSupportDirectory, in: .userDomainMask)
    let folder = support.first ?? FileManager.default.temporaryDirectory
    return CompiledModelCache(
      root: folder.appendingPathComponent(bundleIdentifier ?? "mvit-tool", isDirectory: true)
        .appendingPathComponent("com.mvit-coreml.compiled-models", isDirectory: true))
  }

  /// Returns where the compiled form of a package belongs: `root/<hash>/<name>.mlmodelc`.
  ///
  /// - Parameter package: an .mlpackage folder.
  /// - Throws: the file system's errors.
  public func location(for package: URL) throws -> URL {
    let name = package.deletingPathExtension().lastPathComponent
    return root.appendingPathComponent(try Self.contentHash(of: package), isDirectory: true)
      .appendingPathComponent(name + ".mlmodelc", isDirectory: true)
  }

  /// Returns the SHA-256 of a package's files, their names and their lengths, in hexadecimal.
  ///
  /// Neither the package's own name and place nor the dates of its files count.
  ///
  /// - Parameter package: a folder.
  /// - Throws: the file system's errors.
  public static func contentHash(of package: URL) throws -> String {
    var digest = ContentDigest()
    for path in try filePaths(in: package) {
      // The length keeps a name apart from the content before it, whatever both hold.
      digest.update(Data("\(path.utf8.count) \(path) ".utf8))
      let count = try digest.update(contentsOf: package.appendingPathComponent(path))
      digest.update(Data(" \(count) ".utf8))
    }
    return digest.finalize()
  }

  /// Whether there is a compiled model at a place that looks whole: a folder with files in it.
  ///
  /// Entries are put into place by a rename, so a broken one was damaged later; what is inside only
  /// Core ML can tell. An entry that it refuses is to be removed with ``remove(_:)``.
  public func holdsModel(at location: URL) -> Bool {
    let names = try? FileManager.default.contentsOfDirectory(atPath: location.path)
    return names?.isEmpty == false
  }

  /// Moves a freshly compiled model to its place, and keeps the cache out of backups.
  ///
  /// - Parameters:
  ///   - compiled: where Core ML left it.
  ///   - location: what ``location(for:)`` returned.
  /// - Throws: the file system's errors.
  public func store(_ compiled: URL, at location: URL) throws {
    let files = FileManager.default
    let folder = location.deletingLastPathComponent()
    try files.createDirectory(at: folder, withIntermediateDirectories: true)
    try excludeFromBackup()
    if files.fileExists(atPath: location.path), !holdsModel(at: location) {
      try files.removeItem(at: location)
    }
    do {
      try files.moveItem(at: compiled, to: location)
    } catch {
      // Another process of the same app may have been faster; the content is the same.
      guard holdsModel(at: location) else { throw error }
      try? files.removeItem(at: compiled)
    }
  }

  /// Removes one compiled model, with the folder of its hash.
  ///
  /// - Throws: the file system's errors.
  public func remove(_ location: URL) throws {
    let folder = location.deletingLastPathComponent()
    let parent = folder.deletingLastPathComponent().standardizedFileURL.path
    guard parent == root.standardizedFileURL.path,
      FileManager.default.fileExists(atPath: folder.path)
    else { return }
    try FileManager.default.removeItem(at: folder)
  }

  /// Deletes every compiled model but those at the given places.
  ///
  /// - Parameter locations: what ``location(for:)`` returned for the packages still in use.
  /// - Throws: the file system's errors.
  public func removeAll(except locations: [URL]) throws {
    let kept = Set(locations.map { $0.deletingLastPathComponent().lastPathComponent })
    let manager = FileManager.default
    guard manager.fileExists(atPath: root.path) else { return }
    for name in try manager.contentsOfDirectory(atPath: root.path)
    where !kept.contains(name) && name != CacheUsage.fileName {
      try manager.removeItem(at: root.appendingPathComponent(name))
    }
  }

  /// A compilation can be made again: it belongs into no backup.
  private func excludeFromBackup() throws {
    #if canImport(Darwin)
    var values = URLResourceValues()
    values.isExcludedFromBackup = true
    var folder = root
    try folder.setResourceValues(values)
    #endif
  }
}

/// Paths of all files of a folder, relative to it and in a fixed order.
func filePaths(in folder: URL) throws -> [String] {
  try FileManager.default.subpathsOfDirectory(atPath: folder.path)
    .filter { path in
      var isFolder: ObjCBool = false
      let full = folder.appendingPathComponent(path).path
      let exists = FileManager.default.fileExists(atPath: full, isDirectory: &isFolder)
      // Finder's own files come and go.
      return exists && !isFolder.boolValue && !path.hasSuffix(".DS_Store")
    }
    .sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
}
