#if canImport(CoreML)
import CoreML
import Foundation
import MViTKit
import os

/// Compiles and loads models: each package once, and loads asked for at once only once.
public actor ModelStore {
  /// The store of the process, which keeps compiled models in Application Support.
  public static let shared = ModelStore()

  private struct LoadKey: Hashable {
    let model: URL
    let units: ComputeUnits
    let function: FunctionChoice?
  }

  private let models: CompiledModels
  private var loads: [LoadKey: Task<ImageModel, any Error>] = [:]

  /// Creates a store.
  ///
  /// - Parameters:
  ///   - cache: where compiled models are kept. Their paths follow from the packages' content, because
  ///     the device's own cache knows a model by its path.
  ///   - capacity: how many compiled models are kept; the longest unused go.
  public init(cache: CompiledModelCache = .standard(), capacity: Int = 8) {
    models = CompiledModels(cache: cache, capacity: capacity) { package in
      let name = package.lastPathComponent
      Logger(subsystem: "mvit-coreml", category: "models").info(
        "compiling \(name, privacy: .public)")
      do {
        return try await MLModel.compileModel(at: package)
      } catch {
        throw ModelError.unloadable(name: name, reason: error.localizedDescription)
      }
    }
  }

  /// Whether a model has to be compiled before it can be loaded.
  public nonisolated func needsCompiling(_ model: URL) throws -> Bool {
    try models.needsCompiling(model)
  }

  /// The compiled form of a model, made if there is none yet.
  ///
  /// - Parameter model: an `.mlpackage`, or an `.mlmodelc`, which is returned as it is.
  /// - Throws: ``ModelError/unloadable(name:reason:)``, or what reading the package throws.
  public func compiled(_ model: URL) async throws -> URL {
    try await models.compiled(model)
  }

  /// Loads a model.
  ///
  /// A compiled form that Core ML refuses, because it was damaged or another version of the system
  /// made it, is made anew once.
  ///
  /// - Parameters:
  ///   - model: an `.mlpackage` or `.mlmodelc`.
  ///   - units: what Core ML may use; in the simulator the processor alone unless said.
  ///   - function: of a package with several (iOS 18); the package's default if `nil`.
  /// - Throws: ``ModelError``, `MetadataError` for a package of another tool, or
  ///   `CancellationError`; a load that others wait for too goes on.
  public func model(
    at model: URL, units: ComputeUnits = .standard, function: FunctionChoice? = nil
  ) async throws -> ImageModel {
    let key = LoadKey(model: model, units: units, function: function)
    if let running = loads[key] {
      let loaded = try await running.value
      try Task.checkCancellation()
      return loaded
    }
    let task = Task { [models] in
      // Known from its files, a function is loaded at once and not after the default one.
      let metadata = try PackageMetadata(model: model)
      let name = model.deletingPathExtension().lastPathComponent
      return try await models.load(model, isBroken: { $0.isUnloadable }) { compiled in
        try await ImageModel.open(
          compiled: compiled, name: name, units: units, function: function, metadata: metadata)
      }
    }
    loads[key] = task
    defer { loads[key] = nil }
    let loaded = try await task.value
    try Task.checkCancellation()
    return loaded
  }
}

extension Error {
  /// Whether Core ML refused a compiled model, which compiling it anew may mend.
  fileprivate var isUnloadable: Bool {
    if case .unloadable = self as? ModelError { return true }
    return false
  }
}
#endif
