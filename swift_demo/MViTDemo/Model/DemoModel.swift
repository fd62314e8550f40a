import Foundation
import MViTCoreML
import MViTKit
import Observation

/// Everything the screens show; they change it only through its methods.
///
/// Observation tells the screens of every write, equal or not: what a frame may leave as it is, is
/// compared before it is written.
@MainActor @Observable
final class DemoModel {
  /// Where pictures come from.
  enum Mode: String, CaseIterable, Identifiable {
    case photo, camera

    var id: Self { self }
    var title: String { self == .photo ? localized("Photo") : localized("Camera") }
  }

  private(set) var models = ModelList(bundled: nil)
  private(set) var selected: ModelEntry?
  private(set) var model: (any ImagePredictor<Photo>)?
  /// Counts the models loaded, to tell them apart.
  private(set) var generation = 0
  private(set) var picture: Picture?
  private(set) var isDecoding = false
  private(set) var shown: Shown?
  private(set) var latency = LatencyFigures()
  private(set) var isMeasuring = false
  private(set) var hiddenClasses: Set<Int> = []
  /// What Core ML may use; a change loads the model again.
  var units = ComputeUnits.standard {
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
  private var capture = CaptureLifecycle()
  private var photoProblem: AppProblem?
  private var isCameraDenied = false
  private var predictionProblem: AppProblem?
  @ObservationIgnored private var board = LatencyBoard()
  @ObservationIgnored private var streak = FailureStreak()
  @ObservationIgnored private var loading: Task<Void, Never>?
  @ObservationIgnored private var choosing: Task<Void, Never>?
  @ObservationIgnored private var predicting: Task<Void, Never>?
  @ObservationIgnored private let loader: any ModelLoading
  /// The app's one camera, made when it is first wanted.
  @ObservationIgnored private(set) lazy var camera = Camera { [weak self] event in
    Task { @MainActor in self?.handle(event) }
  }

  /// Everything before the app has looked around.
  ///
  /// - Parameter loader: what loads models; a stand-in needs no Core ML.
  init(loader: any ModelLoading = CoreMLLoading()) {
    self.loader = loader
  }

  /// How far the model's load is.
  var loadState: LoadState { loads.state }

  /// Whether there are frames to show.
  var isCameraRunning: Bool { capture.state == .running }

  /// What keeps an answer from the screen, the most fundamental first.
  var problem: AppProblem? {
    if models.entries.isEmpty { return .noModel }
    if case .failed(let name, let message) = loads.state {
      return .badModel(name: name, reason: message)
    }
    if mode == .camera, let problem = cameraProblem { return problem }
    if mode == .photo, let photoProblem { return photoProblem }
    return predictionProblem
  }

  private var cameraProblem: AppProblem? {
    if isCameraDenied { return .cameraDenied }
    switch capture.state {
    case .unavailable: return .cameraUnavailable
    case .failed: return .cameraFailed
    case .interrupted(let reason): return .cameraInterrupted(reason)
    case .off, .starting, .running: return nil
    }
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

  /// Tries again after a failure: the camera's, or the model's.
  func retry() {
    predictionProblem = nil
    if mode == .camera, capture.state == .failed { return handle(.wanted(true)) }
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
      fail(name: localized("The file"), message: error.localizedDescription)
    }
  }

  private func measureAfresh() {
    resetLatency()
    answerPicture()
  }

  private func resetLatency() {
    board = LatencyBoard()
    latency = LatencyFigures()
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
    resetLatency()
    guard let entry = selected else { return loads.unload() }
    loading = Task { await load(entry) }
  }

  private func load(_ entry: ModelEntry) async {
    let needsCompiling = await loader.needsCompiling(entry.url)
    guard !Task.isCancelled else { return }
    let ticket = loads.request(entry.name, needsCompiling: needsCompiling)
    do {
      if needsCompiling {
        _ = try await loader.compiled(entry.url)
        guard loads.compiled(ticket) else { return }
      }
      let loaded = try await loader.predictor(
        entry.url, units: units, function: functionName.map { .named($0) })
      guard !Task.isCancelled, loads.loaded(ticket) else { return }
      model = loaded
      generation += 1
      answerPicture()
    } catch is CancellationError {
      return
    } catch {
      _ = loads.failed(ticket, message: error.localizedDescription)
    }
  }

  // MARK: Pictures

  /// Decodes a file's content and answers about it.
  func choose(_ data: Data) {
    mode = .photo
    shown = nil
    predictionProblem = nil
    photoProblem = nil
    isDecoding = true
    choosing?.cancel()
    choosing = Task {
      do {
        let decoded = try await Picture.decode(data)
        guard !Task.isCancelled else { return }
        picture = decoded
        isDecoding = false
        answerPicture()
      } catch {
        guard !Task.isCancelled else { return }
        picture = nil
        isDecoding = false
        photoProblem = .badPhoto(reason: error.localizedDescription)
      }
    }
  }

  /// Says that a chosen picture did not arrive.
  func refusePhoto(_ reason: String) {
    photoProblem = .badPhoto(reason: reason)
  }

  /// Measures the latency on the picture.
  func measure(runs: Int = 50) {
    guard let picture, let model, !isMeasuring else { return }
    resetLatency()
    isMeasuring = true
    predicting?.cancel()
    predicting = Task {
      for _ in 0..<runs where !Task.isCancelled { await answer(picture, model) }
      isMeasuring = false
    }
  }

  private func changeSource() {
    isCameraDenied = false
    predictionProblem = nil
    shown = nil
    resetLatency()
    answerPicture()
  }

  private func answerPicture() {
    guard mode == .photo, let picture, let model else { return }
    predicting?.cancel()
    isMeasuring = false
    predicting = Task { await answer(picture, model) }
  }

  private func answer(_ picture: Picture, _ model: any ImagePredictor<Photo>) async {
    let number = generation
    do {
      let prediction = try await model.answer(picture.photo, top: 5, path: path)
      await show(prediction, of: model, number: number, decoding: picture.decoding)
    } catch {
      guard !Task.isCancelled, number == generation else { return }
      predictionProblem = .failedPrediction(reason: error.localizedDescription)
    }
  }

  // MARK: Camera

  /// Keeps the camera on until the task is cancelled: for as long as its screen is there.
  func holdCamera() async {
    guard await Camera.isAllowed() else {
      isCameraDenied = true
      return
    }
    guard !Task.isCancelled else { return }
    handle(.wanted(true))
    // Ends with the task, and with nothing else.
    while !Task.isCancelled { try? await Task.sleep(for: .seconds(3600)) }
    handle(.wanted(false))
  }

  /// What the answers to frames depend on: with another one they begin anew.
  struct FrameSetting: Hashable {
    let generation: Int
    let path: InputPath
  }

  /// What the answers to frames depend on now.
  var frameSetting: FrameSetting { FrameSetting(generation: generation, path: path) }

  /// Answers about the camera's frames until the task is cancelled.
  func answerFrames() async {
    guard let model else { return }
    await answerFrames(with: model)
  }

  private func answerFrames<Predictor: ImagePredictor<Photo>>(with model: Predictor) async {
    let number = generation
    do {
      for try await answer in model.answers(to: camera.frames(), path: path) {
        guard number == generation else { return }
        switch answer.result {
        case .success(let prediction):
          _ = streak.note(failed: false)
          await show(prediction, of: model, number: number, decoding: 0)
        case .failure(let error):
          // In the background the GPU refuses work; that says nothing about the model.
          guard capture.mayPredict, streak.note(failed: true) else { continue }
          publish(\.predictionProblem, .failedPrediction(reason: error.localizedDescription))
        }
      }
    } catch {
      // The camera's stream does not fail.
      return
    }
  }

  /// Tells the camera's life cycle that the app came to the foreground or left it.
  func setForeground(_ isForeground: Bool) {
    handle(.foreground(isForeground))
  }

  private func handle(_ event: CaptureLifecycle.Event) {
    var next = capture
    let action = next.handle(event)
    publish(\.capture, next)
    switch action {
    case .start: camera.start()
    case .stop: camera.stop()
    case .none: break
    }
  }

  // MARK: Showing

  private func show(
    _ prediction: ImagePrediction, of model: any ImagePredictor<Photo>, number: Int,
    decoding: Double
  ) async {
    guard !Task.isCancelled, number == generation else { return }
    let timing = PredictionTiming(
      decoding: decoding, resizing: prediction.timing.resizing,
      prediction: prediction.timing.prediction, path: prediction.timing.path)
    if let figures = board.record(timing, at: Self.seconds()) { publish(\.latency, figures) }
    publish(\.predictionProblem, nil)
    let hidden = hiddenClasses
    let prepared = await Shown.prepare(prediction, model.information, hidden: hidden)
    guard !Task.isCancelled, number == generation else { return }
    if !prepared.looksLike(shown) { shown = prepared }
  }

  /// Shows or hides a class of the segmentation.
  func toggle(_ classIndex: Int) {
    hiddenClasses.formSymmetricDifference([classIndex])
    let hidden = hiddenClasses
    Task {
      guard let before = shown else { return }
      let painted = await before.repainted(hidden: hidden)
      guard before.looksLike(shown), hidden == hiddenClasses else { return }
      shown?.overlay = painted
    }
  }

  /// Writes a property if that changes it.
  private func publish<Value: Equatable>(
    _ property: ReferenceWritableKeyPath<DemoModel, Value>, _ value: Value
  ) {
    if self[keyPath: property] != value { self[keyPath: property] = value }
  }

  /// Seconds of a clock that only goes forward.
  private static func seconds() -> Double { (ContinuousClock.now - began) / .seconds(1) }
  private static let began = ContinuousClock.now
}
