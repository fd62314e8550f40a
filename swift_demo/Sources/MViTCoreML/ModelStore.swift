#if canImport(CoreML)
import CoreML
import Foundation
import MViTKit

/// Compiles and loads models: each package once, and loads asked for at once only once.
public actor ModelStore {
  /// The store of the process, which keeps compiled models in Application Support.
  public static let shared = ModelStore()

  private struct LoadKey: Hashable {
    let compiled: URL
    let units: ComputeUnits
    let function: FunctionChoice?
  }

  private let cache: CompiledModelCache
  private var compilations: [URL: Task<URL, any Error>] = [:]
  private var loads: [LoadKey: Task<ImageModel, any Error>] = [:]

  /// Creates a store.
  ///
  /// - Parameter cache: where compiled models are kept. Their paths follow from the packages'
  ///   content, because the device's own cache knows a model by its path.
  public init(cache: CompiledModelCache = .standard) {
    self.cache = cache
  }

  /// Whether a model has to be compiled before it can be loaded.
  public func needsCompiling(_ model: URL) throws -> Bool {
    try Self.isPackage(model) && !Self.exists(cache.location(for: model))
  }

  /// The compiled form of a model, made if there is none yet.
  ///
  /// - Parameter model: an `.mlpackage`, or an `.mlmodelc`, which is returned as it is.
  /// - Throws: ``ModelError/unloadable(name:reason:)``, or what reading the package throws.
  public func compiled(_ model: URL) async throws -> URL {
    guard Self.isPackage(model) else { return model }
    let location = try cache.location(for: model)
    if let running = compilations[location] { return try await running.value }
    if Self.exists(location) { return location }
    let task = Task { try await Self.compile(model, to: location) }
    compilations[location] = task
    defer { compilations[location] = nil }
    return try await task.value
  }

  /// Loads a model.
  ///
  /// - Parameters:
  ///   - model: an `.mlpackage` or `.mlmodelc`.
  ///   - units: what Core ML may use.
  ///   - function: of a package with several (iOS 18); the package's default if `nil`.
  /// - Throws: ``ModelError``, `MetadataError` for a package of another tool, or
  ///   `CancellationError`; a load that others wait for too goes on.
  public func model(
    at model: URL, units: ComputeUnits = .all, function: FunctionChoice? = nil
  ) async throws -> ImageModel {
    let compiled = try await compiled(model)
    try Task.checkCancellation()
    let key = LoadKey(compiled: compiled, units: units, function: function)
    if let running = loads[key] {
      let loaded = try await running.value
      try Task.checkCancellation()
      return loaded
    }
    let name = model.deletingPathExtension().lastPathComponent
    let task = Task {
      try await ImageModel.open(compiled: compiled, name: name, units: units, function: function)
    }
    loads[key] = task
    defer { loads[key] = nil }
    let loaded = try await task.value
    try Task.checkCancellation()
    return loaded
  }

  private static func compile(_ model: URL, to location: URL) async throws -> URL {
    let temporary: URL
    do {
      temporary = try await MLModel.compileModel(at: model)
    } catch {
      throw ModelError.unloadable(
        name: model.lastPathComponent, reason: error.localizedDescription)
    }
    let files = FileManager.default
    try files.createDirectory(
      at: location.deletingLastPathComponent(), withIntermediateDirectories: true)
    do {
      try files.moveItem(at: temporary, to: location)
    } catch {
      // Another process of the same app may have been faster; the content is the same.
      guard exists(location) else { throw error }
      try? files.removeItem(at: temporary)
    }
    return location
  }

  private static func isPackage(_ model: URL) -> Bool {
    model.pathExtension.lowercased() != "mlmodelc"
  }

  private static func exists(_ url: URL) -> Bool {
    FileManager.default.fileExists(atPath: url.path)
  }
}

extension CompiledModelCache {
  /// The app's own, in Application Support.
  public static var standard: CompiledModelCache {
    let support = FileManager.default.urls(for: .applicationSupportDirectory, in: .userDomainMask)
    let folder = support.first ?? FileManager.default.temporaryDirectory
    return CompiledModelCache(
      root: folder.appendingPathComponent("CompiledModels", isDirectory: true))
  }
}
#endif
