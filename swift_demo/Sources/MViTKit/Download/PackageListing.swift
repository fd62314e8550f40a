import Foundation

/// The files of a package with their lengths and digests: what a server offers beside them.
///
/// A package is a folder, and iOS has no public way to unpack a zip archive. So the files are
/// downloaded one by one, by a listing in JSON; `mvit listing` writes it.
public struct PackageListing: Hashable, Sendable, Codable {
  /// Version of the format that is read and written here.
  public static let version = 1

  /// One file.
  public struct File: Hashable, Sendable, Codable {
    /// Path within the package, with slashes.
    public let path: String
    /// Number of bytes.
    public let size: Int
    /// SHA-256 in hexadecimal.
    public let sha256: String
  }

  /// Version of the format.
  public let version: Int
  /// Name of the package's folder, such as `Classifier.mlpackage`.
  public let name: String
  /// Its files.
  public let files: [File]

  /// The bytes of all files.
  public var size: Int { files.reduce(0) { $0 + $1.size } }

  /// Lists a package's files.
  ///
  /// - Throws: the file system's errors.
  public init(package: URL) throws {
    version = Self.version
    name = package.lastPathComponent
    files = try filePaths(in: package).map { path in
      var digest = ContentDigest()
      let size = try digest.update(contentsOf: package.appendingPathComponent(path))
      return File(path: path, size: size, sha256: digest.finalize())
    }
  }

  /// Reads a listing.
  ///
  /// - Throws: ``PackageDownloadError/badListing(_:)`` for one that cannot be followed: of another
  ///   version, or with paths that lead out of the package.
  public init(json: Data) throws {
    do {
      self = try JSONDecoder().decode(Self.self, from: json)
    } catch {
      throw PackageDownloadError.badListing("is no listing of a package's files")
    }
    guard version == Self.version else {
      throw PackageDownloadError.badListing("has version \(version), not \(Self.version)")
    }
    guard Self.isPlain(name), name.hasSuffix(".mlpackage") else {
      throw PackageDownloadError.badListing("names no .mlpackage")
    }
    for file in files {
      let parts = file.path.split(separator: "/", omittingEmptySubsequences: false)
      guard !parts.isEmpty, parts.allSatisfy({ Self.isPlain(String($0)) }), file.size >= 0 else {
        throw PackageDownloadError.badListing("names the file \(file.path)")
      }
    }
    guard Set(files.map(\.path)).count == files.count, !files.isEmpty else {
      throw PackageDownloadError.badListing("names a file twice, or none")
    }
  }

  /// The listing as JSON, the same for the same package.
  public func json() throws -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return try encoder.encode(self)
  }

  /// Whether a text is one name of a file and no way to another folder.
  private static func isPlain(_ name: String) -> Bool {
    !name.isEmpty && name != "." && name != ".." && !name.contains("/") && !name.contains("\\")
      && !name.contains("\0")
  }
}

/// Why a package could not be downloaded.
public enum PackageDownloadError: Error, Hashable, Sendable, CustomStringConvertible, LocalizedError
{
  /// The listing cannot be followed.
  case badListing(String)
  /// The server answered with another status than success.
  case refused(url: String, status: Int)
  /// What arrived is not what the listing promises.
  case wrongContent(path: String)

  /// One line for the user.
  public var description: String {
    switch self {
    case .badListing(let problem): "The listing \(problem)."
    case .refused(let url, let status): "The server answered \(status) for \(url)."
    case .wrongContent(let path): "\(path) arrived damaged; try again."
    }
  }

  /// One line for the user.
  public var errorDescription: String? { description }
}
