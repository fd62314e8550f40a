import Foundation
import MViTKit

/// Models that the user brought along, in the app's documents.
enum ImportedModels {
  /// Folders that are looked through for models.
  static var folders: [URL] { [documents] }

  private static var documents: URL {
    FileManager.default.urls(for: .documentDirectory, in: .userDomainMask)[0]
  }

  /// Copies a chosen package into the documents, replacing one of the same name.
  static func take(_ url: URL) throws -> ModelEntry {
    guard ModelList.isModel(url) else {
      throw SelfTestError(
        file: url.lastPathComponent, problem: localized("is no .mlpackage or .mlmodelc"))
    }
    let isScoped = url.startAccessingSecurityScopedResource()
    defer { if isScoped { url.stopAccessingSecurityScopedResource() } }
    let files = FileManager.default
    let target = documents.appendingPathComponent(url.lastPathComponent, isDirectory: true)
    guard target.standardizedFileURL != url.standardizedFileURL else {
      return ModelEntry.standalone(url)
    }
    // Copied beside the target first, so that a copy that breaks off leaves the old one whole.
    let partial = documents.appendingPathComponent("." + UUID().uuidString, isDirectory: true)
    try files.copyItem(at: url, to: partial)
    if files.fileExists(atPath: target.path) {
      _ = try files.replaceItemAt(target, withItemAt: partial)
    } else {
      try files.moveItem(at: partial, to: target)
    }
    return ModelEntry.standalone(target)
  }
}
