import Foundation

/// Where compiled models are kept: under a name that changes with the package's content alone.
///
/// Core ML's own cache on the device is keyed by path, so a stable path saves the second launch
/// from specialising the model again, and a changed package never meets an old compilation.
public struct CompiledModelCache: Hashable, Sendable {
  /// The folder of all compiled models, such as one in Application Support.
  public let root: URL

  /// A cache in a folder, which need not exist yet.
  public init(root: URL) {
    self.root = root
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
    var hash = SHA256()
    for path in try files(in: package) {
      let file = package.appendingPathComponent(path)
      let content = try Data(contentsOf: file, options: .mappedIfSafe)
      // The length keeps a name apart from the content that follows, whatever both hold.
      hash.update(Array("\(path.utf8.count) \(path) \(content.count) ".utf8))
      hash.update(content)
    }
    return hexadecimal(hash.finalize())
  }

  /// Deletes every compiled model but those at the given places.
  ///
  /// - Parameter locations: what ``location(for:)`` returned for the packages still in use.
  /// - Throws: the file system's errors.
  public func removeAll(except locations: [URL]) throws {
    let kept = Set(locations.map { $0.deletingLastPathComponent().lastPathComponent })
    let manager = FileManager.default
    guard manager.fileExists(atPath: root.path) else { return }
    for name in try manager.contentsOfDirectory(atPath: root.path) where !kept.contains(name) {
      try manager.removeItem(at: root.appendingPathComponent(name))
    }
  }

  /// Paths of all files of a folder, relative to it and in a fixed order.
  private static func files(in folder: URL) throws -> [String] {
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
}
