import Foundation
import Testing

@testable import MViTKit

/// A server in memory that can break off, and says what it was asked for.
private actor FakeServer: ByteSource {
  struct Offline: Error {}

  private var contents: [String: Data]
  private(set) var asked: [String] = []
  private var answersLeft = Int.max

  init(_ contents: [String: Data]) { self.contents = contents }

  func breakOff(after answers: Int) { answersLeft = answers }
  func forget() { asked = [] }
  func change(_ path: String, to data: Data) { contents[path] = data }

  func read(_ url: URL, range: Range<Int>?) async throws -> Data {
    asked.append(url.path + (range.map { " \($0.lowerBound)" } ?? ""))
    guard answersLeft > 0 else { throw Offline() }
    answersLeft -= 1
    guard let data = contents[url.path] else {
      throw PackageDownloadError.refused(url: url.path, status: 404)
    }
    guard let range else { return data }
    return data.dropFirst(range.lowerBound).prefix(range.count)
  }
}

@Suite("Downloading a package", .timeLimit(.minutes(1)))
struct PackageDownloadTests {
  private let listing = URL(string: "https://example.com/models/a.json")!

  private struct Server {
    let server: FakeServer
    let digest: String
    let weights: Data
  }

  private func serve(_ folder: URL) throws -> Server {
    let package = folder.appendingPathComponent("a.mlpackage")
    let inner = package.appendingPathComponent("Data/weights")
    try FileManager.default.createDirectory(at: inner, withIntermediateDirectories: true)
    let weights = Data((0..<95).map { UInt8($0) })
    try weights.write(to: inner.appendingPathComponent("weight.bin"))
    try Data("{}".utf8).write(to: package.appendingPathComponent("Manifest.json"))
    let json = try PackageListing(package: package).json()
    return Server(
      server: FakeServer([
        "/models/a.json": json, "/models/a.mlpackage/Manifest.json": Data("{}".utf8),
        "/models/a.mlpackage/Data/weights/weight.bin": weights,
      ]), digest: ContentDigest.hex(of: json), weights: weights)
  }

  private func downloader(_ folder: URL, _ server: FakeServer) -> PackageDownloader {
    PackageDownloader(
      folder: folder.appendingPathComponent("downloads"), source: server, pieceLength: 10)
  }

  @Test("brings every file, and is not done again")
  func whole() async throws {
    try await withTemporaryFolder { folder in
      let served = try serve(folder)
      let progress = Progress()
      let package = try await downloader(folder, served.server).package(
        listing: listing, sha256: served.digest, progress: progress.note)
      #expect(package.lastPathComponent == "a.mlpackage")
      let weights = package.appendingPathComponent("Data/weights/weight.bin")
      #expect(try Data(contentsOf: weights) == served.weights)
      #expect(progress.all.last == [97, 97] && progress.all.map { $0[0] }.isSorted)
      await served.server.forget()
      _ = try await downloader(folder, served.server).package(
        listing: listing, sha256: served.digest)
      #expect(await served.server.asked == ["/models/a.json"])
    }
  }

  @Test("goes on where it broke off, also in another process")
  func resumed() async throws {
    try await withTemporaryFolder { folder in
      let served = try serve(folder)
      // The listing, six pieces of the weights, then nothing.
      await served.server.breakOff(after: 7)
      await #expect(throws: FakeServer.Offline.self) {
        try await downloader(folder, served.server).package(listing: listing, sha256: nil)
      }
      await served.server.forget()
      await served.server.breakOff(after: .max)
      let package = try await downloader(folder, served.server).package(
        listing: listing, sha256: nil)
      let weights = package.appendingPathComponent("Data/weights/weight.bin")
      #expect(try Data(contentsOf: weights) == served.weights)
      let asked = await served.server.asked
      #expect(asked[1] == "/models/a.mlpackage/Data/weights/weight.bin 60")
    }
  }

  @Test("refuses what is not what the listing promises, and starts that file anew")
  func damaged() async throws {
    try await withTemporaryFolder { folder in
      let served = try serve(folder)
      let path = "/models/a.mlpackage/Data/weights/weight.bin"
      await served.server.change(path, to: Data(repeating: 7, count: 95))
      await #expect(throws: PackageDownloadError.wrongContent(path: "Data/weights/weight.bin")) {
        try await downloader(folder, served.server).package(listing: listing, sha256: nil)
      }
      await served.server.change(path, to: served.weights)
      let package = try await downloader(folder, served.server).package(
        listing: listing, sha256: nil)
      #expect(FileManager.default.fileExists(atPath: package.path))
    }
  }

  @Test("refuses another listing than the app expects")
  func otherListing() async throws {
    try await withTemporaryFolder { folder in
      let served = try serve(folder)
      await #expect(throws: PackageDownloadError.wrongContent(path: "a.json")) {
        try await downloader(folder, served.server).package(
          listing: listing, sha256: String(repeating: "0", count: 64))
      }
    }
  }

  @Test(
    "follows no listing that leads out of the package",
    arguments: [
      ("a.mlpackage", "../x"), ("a.mlpackage", "/etc/x"), ("a.mlpackage", "a//b"),
      ("a.mlpackage", "./b"), ("../a.mlpackage", "x"), ("a.txt", "x"), ("a.mlpackage", ""),
    ])
  func paths(name: String, path: String) {
    let json = """
      {"version": 1, "name": "\(name)", "files": [{"path": "\(path)", "size": 1, "sha256": ""}]}
      """
    #expect(throws: PackageDownloadError.self) { try PackageListing(json: Data(json.utf8)) }
  }

  @Test("takes its bytes out of a whole file from a server without ranges, and no error page")
  func http() {
    let data = Data([1, 2, 3, 4])
    #expect(HTTPSource.piece(of: data, status: 200, range: 1..<3) == Data([2, 3]))
    #expect(HTTPSource.piece(of: data, status: 206, range: 1..<5) == data)
    #expect(HTTPSource.piece(of: data, status: 200, range: nil) == data)
    #expect(HTTPSource.piece(of: data, status: 404, range: 1..<3) == nil)
    #expect(HTTPSource.piece(of: data, status: 206, range: nil) == nil)
  }
}

extension [Int] {
  fileprivate var isSorted: Bool { zip(self, dropFirst()).allSatisfy { $0 <= $1 } }
}

/// Unchecked: the lock guards the only member.
private final class Progress: @unchecked Sendable {
  private let lock = NSLock()
  private var noted: [[Int]] = []

  var all: [[Int]] { lock.withLock { noted } }
  func note(_ done: Int, _ total: Int) { lock.withLock { noted.append([done, total]) } }
}
