import Foundation
import MViTKit
import Testing

@Suite("What a compiled model says without being loaded")
struct CompiledPackageTests {
  private func compiled(_ folder: URL, _ metadata: Any?) throws -> URL {
    if let metadata {
      try JSONSerialization.data(withJSONObject: metadata)
        .write(to: folder.appendingPathComponent("metadata.json"))
    }
    return folder
  }

  @Test("is what its package said")
  func same() throws {
    let package = Golden.folder.appendingPathComponent("packages/sizes")
    let userDefined = try PackageDescription(package: package).userDefined
    let metadata = try PackageMetadata(userDefined: userDefined)
    try withTemporaryFolder { folder in
      let url = try compiled(folder, [["userDefinedMetadata": userDefined, "other": 1]])
      #expect(try PackageMetadata(compiled: url) == metadata)
      #expect(try PackageMetadata(model: url) == metadata)
    }
    #expect(try PackageMetadata(model: package) == metadata)
  }

  @Test("is unknown where there is no description, and refused where it is another tool's")
  func others() throws {
    try withTemporaryFolder { folder in
      #expect(try PackageMetadata(compiled: folder) == nil)
      _ = try compiled(folder, [["author": "x"]])
      #expect(try PackageMetadata(compiled: folder) == nil)
      _ = try compiled(folder, [["userDefinedMetadata": ["a": "b"]]])
      #expect(throws: MetadataError.self) { try PackageMetadata(compiled: folder) }
    }
  }
}
