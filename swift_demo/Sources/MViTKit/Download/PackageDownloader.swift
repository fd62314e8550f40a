import Foundation

#if canImport(FoundationNetworking)
import FoundationNetworking
#endif

/// Where the bytes of a download come from.
public protocol ByteSource: Sendable {
  /// Reads a part of a file.
  ///
  /// - Parameters:
  ///   - url: the file.
  ///   - range: which of its bytes, `nil` for all.
  /// - Returns: the bytes: exactly those of the range, or fewer at the file's end.
  func read(_ url: URL, range: Range<Int>?) async throws -> Data
}

/// Downloads packages file by file, resumes what broke off, and checks every file's digest.
///
/// Files arrive in pieces beside the destination; a piece that is there is not asked for again, also
/// after the app was killed. The package appears in one step, whole and checked, or not at all.
/// Compile and keep it with `ModelStore`, which knows a package by its content.
public actor PackageDownloader {
  private let folder: URL
  private let source: any ByteSource
  private let pieceLength: Int
  private var running: [URL: Task<URL, any Error>] = [:]

  /// Downloads into a folder.
  ///
  /// - Parameters:
  ///   - folder: where packages and what there is of unfinished ones lie, such as one in Application
  ///     Support; it is kept out of backups.
  ///   - source: where the bytes come from.
  ///   - pieceLength: how many bytes are asked for at once, and lost at most when it breaks off.
  public init(
    folder: URL, source: any ByteSource = HTTPSource(), pieceLength: Int = 1 << 20
  ) {
    self.folder = folder
    self.source = source
    self.pieceLength = max(1, pieceLength)
  }

  /// Returns a package, downloaded if it is not there yet; asked for twice at once, downloaded once.
  ///
  /// - Parameters:
  ///   - listing: URL of its listing; the files lie beside it in a folder of the package's name.
  ///   - sha256: digest of the listing, which makes sure of all the rest. Ship it in the app, or take
  ///     it from a server that you trust more than the one of the files.
  ///   - progress: told the bytes that are there, and those of all files.
  /// - Throws: ``PackageDownloadError``, or what the source throws; a later call resumes.
  public func package(
    listing: URL, sha256: String?, progress: @escaping @Sendable (Int, Int) -> Void = { _, _ in }
  ) async throws -> URL {
    if let task = running[listing] { return try await task.value }
    let task = Task { try await download(listing, sha256: sha256, progress: progress) }
    running[listing] = task
    defer { running[listing] = nil }
    return try await withTaskCancellationHandler {
      try await task.value
    } onCancel: {
      task.cancel()
    }
  }

  private func download(
    _ listingURL: URL, sha256: String?, progress: @Sendable (Int, Int) -> Void
  ) async throws -> URL {
    let content = try await source.read(listingURL, range: nil)
    let digest = ContentDigest.hex(of: content)
    guard sha256 == nil || digest == sha256?.lowercased() else {
      throw PackageDownloadError.wrongContent(path: listingURL.lastPathComponent)
    }
    let listing = try PackageListing(json: content)
    let files = FileManager.default
    // The listing's digest tells versions of a package apart.
    let place = folder.appendingPathComponent(digest, isDirectory: true)
    let finished = place.appendingPathComponent(listing.name, isDirectory: true)
    if files.fileExists(atPath: finished.path) {
      progress(listing.size, listing.size)
      return finished
    }
    let partial = place.appendingPathComponent("partial", isDirectory: true)
    try files.createDirectory(at: partial, withIntermediateDirectories: true)
    try excludeFromBackup()
    let base = listingURL.deletingLastPathComponent()
      .appendingPathComponent(listing.name, isDirectory: true)
    var before = 0
    for file in listing.files {
      let target = partial.appendingPathComponent(file.path)
      let start = before
      try await fetch(file, from: base.appendingPathComponent(file.path), to: target) {
        progress(start + $0, listing.size)
      }
      before += file.size
    }
    try files.moveItem(at: partial, to: finished)
    return finished
  }

  /// Brings one file, from where an earlier attempt ended.
  private func fetch(
    _ file: PackageListing.File, from url: URL, to target: URL, progress: (Int) -> Void
  ) async throws {
    let files = FileManager.default
    try files.createDirectory(
      at: target.deletingLastPathComponent(), withIntermediateDirectories: true)
    if !files.fileExists(atPath: target.path) { try Data().write(to: target) }
    let handle = try FileHandle(forUpdating: target)
    defer { try? handle.close() }
    var length = Int(try handle.seekToEnd())
    progress(min(length, file.size))
    while length < file.size {
      try Task.checkCancellation()
      let range = length..<min(length + pieceLength, file.size)
      let piece = try await source.read(url, range: range)
      guard !piece.isEmpty, piece.count <= range.count else {
        throw PackageDownloadError.wrongContent(path: file.path)
      }
      try handle.write(contentsOf: piece)
      length += piece.count
      progress(length)
    }
    var digest = ContentDigest()
    guard try digest.update(contentsOf: target) == file.size, digest.finalize() == file.sha256
    else {
      // The next attempt must not build on it.
      try? files.removeItem(at: target)
      throw PackageDownloadError.wrongContent(path: file.path)
    }
  }

  private func excludeFromBackup() throws {
    #if canImport(Darwin)
    var values = URLResourceValues()
    values.isExcludedFromBackup = true
    var target = folder
    try target.setResourceValues(values)
    #endif
  }
}

/// Bytes by HTTP, in ranges.
public struct HTTPSource: ByteSource {
  private let session: URLSession

  /// Asks with a session.
  public init(session: URLSession = .shared) {
    self.session = session
  }

  /// Asks for a file, or for some of its bytes.
  ///
  /// A server that knows no ranges sends all of the file each time: right, but slow.
  public func read(_ url: URL, range: Range<Int>?) async throws -> Data {
    var request = URLRequest(url: url)
    if let range {
      request.setValue(
        "bytes=\(range.lowerBound)-\(range.upperBound - 1)", forHTTPHeaderField: "Range")
    }
    let (data, response) = try await session.data(for: request)
    // A file URL has no status.
    let status = (response as? HTTPURLResponse)?.statusCode ?? 200
    guard let piece = Self.piece(of: data, status: status, range: range) else {
      throw PackageDownloadError.refused(url: url.absoluteString, status: status)
    }
    return piece
  }

  /// The bytes that were asked for, of an answer; `nil` for one that is no success.
  static func piece(of data: Data, status: Int, range: Range<Int>?) -> Data? {
    switch (status, range) {
    case (200, let range?):
      data.dropFirst(range.lowerBound).prefix(range.count)
    case (200, nil), (206, .some): data
    default: nil
    }
  }
}
