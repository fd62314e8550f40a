import Foundation
import MViTKit

/// `mvit listing`: lists a package's files with their digests, for `PackageDownloader`.
struct ListingCommand: Command {
  static let name = "listing"
  static let usage = """
    mvit listing PACKAGE [-o FILE.json]
        Print the package's files with lengths and SHA-256 as JSON: put it on a server beside the
        package's folder, and an app downloads both with PackageDownloader. With -o, write it to a
        file and print the file's own SHA-256, to ship in the app.
    """

  static func run(_ words: ArraySlice<String>) async throws {
    let arguments = try Arguments(words, known: ["-o"])
    let package = URL(fileURLWithPath: try arguments.require("PACKAGE")[0])
    // A folder that is no package is refused with the reason.
    _ = try PackageDescription(package: package)
    let json = try PackageListing(package: package).json()
    guard let output = arguments.text("-o") else {
      return print(String(decoding: json, as: UTF8.self))
    }
    do {
      try json.write(to: URL(fileURLWithPath: output))
    } catch {
      throw UsageError(description: "\(output): cannot be written")
    }
    print("sha256   \(ContentDigest.hex(of: json))")
  }
}
