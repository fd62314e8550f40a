import Foundation

/// A model that the app can load.
struct ModelEntry: Hashable, Sendable, Identifiable {
  /// Its folder: `.mlmodelc` or `.mlpackage`.
  let url: URL
  /// Whether it came with the app, rather than from the user.
  let isBundled: Bool
  /// The self-test's file beside it, if there is one.
  let selfTest: URL?

  /// The folder's name without its suffix.
  var name: String { url.deletingPathExtension().lastPathComponent }
  /// Where it lies, unique.
  var id: URL { url }

  /// Creates an entry.
  init(url: URL, isBundled: Bool, selfTest: URL? = nil) {
    self.url = url
    self.isBundled = isBundled
    self.selfTest = selfTest
  }
}

/// The models in the app's bundle and in its documents.
struct ModelList: Hashable, Sendable {
  /// The models: the bundled first, each group by name.
  let entries: [ModelEntry]

  /// Folder suffixes of models, the compiled form first.
  static let suffixes = [ModelFileType.compiledSuffix, "mlpackage"]

  /// Whether a file's name is a model's.
  static func isModel(_ url: URL) -> Bool {
    suffixes.contains(url.pathExtension.lowercased())
  }

  /// Looks for models.
  ///
  /// Xcode compiles a package in the app's folder to `.mlmodelc`; where both forms of a model lie
  /// in one folder, the compiled one is listed.
  ///
  /// - Parameters:
  ///   - bundled: folder of the app's own resources.
  ///   - own: folders with the user's models; missing ones are passed over.
  init(bundled: URL?, own: [URL] = []) {
    entries =
      (bundled.map { Self.models(in: $0, isBundled: true) } ?? [])
      + own.flatMap { Self.models(in: $0, isBundled: false) }
  }

  private static func models(in folder: URL, isBundled: Bool) -> [ModelEntry] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
    let found = Dictionary(grouping: names.filter { isModel(URL(fileURLWithPath: $0)) }) {
      ($0 as NSString).deletingPathExtension
    }
    return found.keys.sorted { $0.lowercased() < $1.lowercased() }.compactMap { name in
      let candidates = found[name] ?? []
      let chosen = suffixes.lazy.compactMap { suffix in
        candidates.first { $0.lowercased().hasSuffix("." + suffix) }
      }.first
      guard let chosen else { return nil }
      let test = "\(name).selftest.json"
      return ModelEntry(
        url: folder.appendingPathComponent(chosen, isDirectory: true), isBundled: isBundled,
        selfTest: names.contains(test) ? folder.appendingPathComponent(test) : nil)
    }
  }
}

extension ModelEntry {
  /// The self-test beside a model that lies on its own, such as one named on a command line.
  static func standalone(_ url: URL) -> ModelEntry {
    let test = url.deletingPathExtension().appendingPathExtension("selftest.json")
    let exists = FileManager.default.fileExists(atPath: test.path)
    return ModelEntry(url: url, isBundled: false, selfTest: exists ? test : nil)
  }
}
