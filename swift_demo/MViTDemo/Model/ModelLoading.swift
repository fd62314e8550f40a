import Foundation
import MViTCoreML
import MViTKit

/// What loads the app's models: Core ML, or a stand-in for previews and tests.
protocol ModelLoading: Sendable {
  /// Whether a model has to be compiled first.
  func needsCompiling(_ model: URL) async -> Bool
  /// The compiled form of a model.
  func compiled(_ model: URL) async throws -> URL
  /// A model that is ready to answer.
  func predictor(
    _ model: URL, units: ComputeUnits, function: FunctionChoice?
  ) async throws -> any ImagePredictor<Photo>
}

/// Loads with Core ML.
struct CoreMLLoading: ModelLoading {
  var store = ModelStore.shared

  func needsCompiling(_ model: URL) async -> Bool {
    (try? store.needsCompiling(model)) ?? false
  }

  func compiled(_ model: URL) async throws -> URL {
    try await store.compiled(model)
  }

  func predictor(
    _ model: URL, units: ComputeUnits, function: FunctionChoice?
  ) async throws -> any ImagePredictor<Photo> {
    let loaded = try await store.model(at: model, units: units, function: function)
    try await loaded.warmUp()
    return loaded
  }
}
