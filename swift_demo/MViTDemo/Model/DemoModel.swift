import CoreGraphics
import Foundation
import MViTCoreML
import MViTKit
import Observation

/// Everything the screens show; they change it only through its methods.
@MainActor @Observable
final class DemoModel {
  /// Where pictures come from.
  enum Mode: String, CaseIterable, Identifiable {
    case photo, camera

    var id: Self { self }
    var title: String { self == .photo ? "Photo" : "Camera" }
  }

  /// A chosen picture: decoded on demand for the model, as a file's content for the screen.
  struct Picture {
    let photo: Photo
    let data: Data
  }

  /// An answer with what the screen needs of it.
  struct Shown {
    let prediction: ImagePrediction
    let information: ModelInformation
    var overlay: CGImage?
  }

  private(set) var models = ModelList(bundled: nil)
  private(set) var selected: ModelEntry?
  private(set) var model: ImageModel?
  private(set) var picture: Picture?
  private(set) var shown: Shown?
  private(set) var latency = LatencyRing(capacity: 120)
  private(set) var isMeasuring = false
  private(set) var isCameraRunning = false
  private(set) var hiddenClasses: Set<Int> = []
  /// What Core ML may use; a change loads the model again.
  var units = ComputeUnits.all {
    didSet { if units != oldValue { load() } }
  }
  /// How pictures are brought to the model.
  var path = InputPath.exact {
    didSet { if path != oldValue { measureAfresh() } }
  }
  /// Where pictures come from; a change starts afresh.
  var mode = Mode.photo {
    didSet { if mode != oldValue { changeSource() } }
  }
  var opacity = 0.6

  private var functionName: String?
  private var loads = LoadStateMachine()
  private var photoProblem: AppProblem?
  private var cameraProblem: AppProblem?
  private var predictionProblem: AppProblem?
  private var loading: Task<Void, Never>?
  private var predicting: Task<Void, Never>?
  private let store = ModelStore.shared

  /// How far the model's load is.
  var loadState: LoadState { loads.state }

  /// What keeps an answer from the screen, the most fundamental first.
  var problem: AppProblem? {
    if models.entries.isEmpty { return .noModel }
    if case .failed(let name, let message) = loads.state {
      return .badModel(name: name, reason: message)
    }
    if mode == .camera, let cameraProblem { return cameraProblem }
    if mode == .photo, let photoProblem { return photoProblem }
    return predictionProblem
  }

  /// Looks for models and loads the first.
  func start() {
    guard selected == nil else { return }
    refreshModels()
    if let first = models.entries.first { select(first) }
  }

  // MARK: Models

  /// Loads another model.
  func select(_ entry: ModelEntry) {
    selected = entry
    functionName = nil
    hiddenClasses = []
    load()
  }

  /// The function in use; another one of a package with several is loaded when this is set.
  var function: String {
    get { model?.information.function.name ?? "" }
    set {
      guard newValue != function else { return }
      functionName = newValue
      load()
    }
  }

  /// Loads the model again after a failure.
  func retry() {
    predictionProblem = nil
    load()
  }

  /// Copies a package that was chosen in Files into the app's documents and loads it.
  func openModel(_ result: Result<[URL], any Error>) {
    do {
      guard let url = try result.get().first else { return }
      let entry = try ImportedModels.take(url)
      refreshModels()
      select(entry)
    } catch {
      fail(name: "The file", message: error.localizedDescription)
    }
  }

  private func measureAfresh() {
    latency.reset()
    answerPicture()
  }

  private func refreshModels() {
    models = ModelList(bundled: Bundle.main.resourceURL, own: ImportedModels.folders)
  }

  private func fail(name: String, message: String) {
    let ticket = loads.request(name, needsCompiling: false)
    _ = loads.failed(ticket, message: message)
  }

  private func load() {
    loading?.cancel()
    predicting?.cancel()
    model = nil
    shown = nil
    predictionProblem = nil
    latency.reset()
    guard let entry = selected else { return loads.unload() }
    loading = Task { await load(entry) }
  }

  private func load(_ entry: ModelEntry) async {
    let needsCompiling = (try? await store.needsCompiling(entry.url)) ?? false
    guard !Task.isCancelled else { return }
    let ticket = loads.request(entry.name, needsCompiling: needsCompiling)
    do {
      let compiled = try await store.compiled(entry.url)
      if needsCompiling, !loads.compiled(ticket) { return }
      let loaded = try await store.model(
        at: compiled, units: units, function: functionName.map { .named($0) })
      try await loaded.warmUp()
      guard !Task.isCancelled, loads.loaded(ticket) else { return }
      model = loaded
      answerPicture()
    } catch is CancellationError {
      return
    } catch {
      _ = loads.failed(ticket, message: error.localizedDescription)
    }
  }

  // MARK: Pictures

  /// Answers about a file's content.
  func choose(_ data: Data) {
    mode = .photo
    shown = nil
    predictionProblem = nil
    do {
      picture = Picture(photo: try Photo(data: data), data: data)
      photoProblem = nil
      answerPicture()
    } catch {
      picture = nil
      photoProblem = .badPhoto(reason: error.localizedDescription)
    }
  }

  /// Says that a chosen picture did not arrive.
  func refusePhoto(_ reason: String) {
    photoProblem = .badPhoto(reason: reason)
  }

  /// Answers about the frames of the camera until the task is cancelled.
  func run(_ camera: Camera) async {
    guard await Camera.isAllowed() else {
      cameraProblem = .cameraDenied
      return
    }
    do {
      let frames = try await camera.frames()
      isCameraRunning = true
      for await frame in frames {
        guard !Task.isCancelled else { break }
        await answer(frame)
      }
    } catch {
      cameraProblem = .cameraUnavailable
    }
    isCameraRunning = false
    camera.stop()
  }

  /// Measures the latency on the picture.
  func measure(runs: Int = 50) {
    guard let photo = picture?.photo, !isMeasuring else { return }
    latency.reset()
    isMeasuring = true
    predicting?.cancel()
    predicting = Task {
      for _ in 0..<runs where !Task.isCancelled { await answer(photo) }
      isMeasuring = false
    }
  }

  private func changeSource() {
    cameraProblem = nil
    predictionProblem = nil
    shown = nil
    latency.reset()
    answerPicture()
  }

  private func answerPicture() {
    guard mode == .photo, let photo = picture?.photo else { return }
    predicting?.cancel()
    isMeasuring = false
    predicting = Task { await answer(photo) }
  }

  private func answer(_ photo: Photo) async {
    guard let model else { return }
    do {
      let prediction = try await model.answer(photo, path: path)
      guard !Task.isCancelled, model === self.model else { return }
      latency.record(
        seconds: prediction.timing.prediction, finishedAt: ProcessInfo.processInfo.systemUptime)
      predictionProblem = nil
      var answered = Shown(prediction: prediction, information: model.information)
      answered.overlay = await overlay(of: answered)
      guard !Task.isCancelled, model === self.model else { return }
      shown = answered
    } catch is CancellationError {
      return
    } catch {
      predictionProblem = .failedPrediction(reason: error.localizedDescription)
    }
  }

  // MARK: Overlay

  /// Shows or hides a class of the segmentation.
  func toggle(_ classIndex: Int) {
    hiddenClasses.formSymmetricDifference([classIndex])
    Task {
      guard let before = shown else { return }
      let painted = await overlay(of: before)
      shown?.overlay = painted
    }
  }

  private func overlay(of answered: Shown) async -> CGImage? {
    guard case .segmentation(let map) = answered.prediction.answer else { return nil }
    let pixels = await Self.paint(map, answered.information.palette, hidden: hiddenClasses)
    return pixels.makeImage(isPremultiplied: true)
  }

  private nonisolated static func paint(
    _ map: ClassMap, _ palette: ClassPalette, hidden: Set<Int>
  ) async -> PixelImage {
    palette.overlay(map, hidden: hidden)
  }
}
