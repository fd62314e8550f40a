import Foundation

#if canImport(CryptoKit)
import CryptoKit
#endif

/// SHA-256 of bytes that come piece by piece, in hexadecimal.
///
/// CryptoKit's where there is one, which is several times faster; the portable one elsewhere.
package struct ContentDigest: Sendable {
  #if canImport(CryptoKit)
  private var hash = SHA256()
  #else
  private var hash = PortableSHA256()
  #endif

  /// A digest of nothing so far.
  package init() {}

  /// Adds bytes.
  package mutating func update(_ bytes: some DataProtocol) {
    #if canImport(CryptoKit)
    hash.update(data: bytes)
    #else
    hash.update(bytes)
    #endif
  }

  /// Adds a file's content without holding all of it.
  ///
  /// - Returns: the number of its bytes.
  @discardableResult
  package mutating func update(contentsOf file: URL) throws -> Int {
    let handle = try FileHandle(forReadingFrom: file)
    defer { try? handle.close() }
    var count = 0
    while let piece = try handle.read(upToCount: 1 << 20), !piece.isEmpty {
      update(piece)
      count += piece.count
    }
    return count
  }

  /// The digest of all that was added, as 64 hexadecimal digits.
  package consuming func finalize() -> String { hexadecimal(Array(hash.finalize())) }

  /// The digest of bytes, as 64 hexadecimal digits.
  package static func hex(of bytes: some DataProtocol) -> String {
    var digest = ContentDigest()
    digest.update(bytes)
    return digest.finalize()
  }
}

/// Returns two hexadecimal digits for every byte, in lower case.
func hexadecimal(_ bytes: [UInt8]) -> String {
  let digits = Array("0123456789abcdef".utf8)
  return String(
    decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
}
